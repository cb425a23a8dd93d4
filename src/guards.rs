//! What benches/guard counts the instructions of, and what is not public. It is there with the feature `guards` alone, which
//! nothing else asks for. Not here: any count.

use crate::app::{Worker, routes as stock};
use crate::config::{AppKind, Environment, Source};
use crate::scoreboard::{Board, Generations, Place, RequestPhase, blindfold};
use std::sync::Arc;

/// A turn of the master's loop with so many workers, where nothing happens.
pub fn arbiter(workers: u32) -> impl FnMut() {
    crate::master::calm(workers)
}

/// The stock app with so many pages of text, `/page/0` and on.
pub fn routes(count: usize) -> axum::Router {
    let route = |number| format!("[[route]]\npath = '/page/{number}'\ntext = 'a page'\n");
    let source = Source::of_text(AppKind::Stock, (0..count).map(route).collect(), Environment::new());
    let settings = source.read().unwrap_or_else(|error| panic!("{error}"));
    stock::build(&Worker::new(0, Arc::new(settings), board(), false, |_| {}, || {}))
}

/// What a request with an answer does on its worker's seat.
pub fn seat() -> impl FnMut() {
    let seat = board().seat(0);
    let place = Place::default();
    move || {
        let in_flight = place.begin(&seat.in_flight, "GET", "/some/path", 1000);
        let former = in_flight.make_current();
        in_flight.enter(RequestPhase::Handler);
        drop(former);
        in_flight.enter(RequestPhase::Writing);
        seat.tally.answered(2, 700, 21);
        place.end(&seat.in_flight);
    }
}

/// From now on the workers see nothing of their requests.
pub fn look_away() {
    blindfold::put_on();
}

fn board() -> Board {
    let (generations, _) = Generations::make().expect("there is memory");
    Board::new(1, generations).expect("there is memory")
}
