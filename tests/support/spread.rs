//! How evenly connections are spread over workers. Not here: what is even enough.

use super::{Connection, Server};
use std::collections::BTreeMap;

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// All are there before the first asks.
    Together,
    /// Each has its answer before the next comes.
    OneByOne,
}

/// Opens `count` connections, keeps them all, and says how many each worker has.
pub fn shares(server: &Server, count: usize, coming: Coming) -> Vec<usize> {
    let mut clients: Vec<Connection> = Vec::new();
    let mut workers = BTreeMap::<i32, usize>::new();
    let mut ask = |client: &mut Connection| {
        let answer = client.get("/pid").unwrap_or_else(|failure| panic!("GET /pid: {failure}"));
        *workers.entry(answer.worker()).or_default() += 1;
    };
    for _ in 0..count {
        let mut client = server.connect();
        if coming == Coming::OneByOne {
            ask(&mut client);
        }
        clients.push(client);
    }
    if coming == Coming::Together {
        for client in &mut clients {
            client.send(super::http::request("GET", "/pid", &[], b"")).expect("the server is there");
        }
        for client in &mut clients {
            let answer = client.read().unwrap_or_else(|failure| panic!("GET /pid: {failure}"));
            *workers.entry(answer.worker()).or_default() += 1;
        }
    }
    workers.into_values().collect()
}

/// The coefficient of variation: the standard deviation over the mean.
pub fn variation(shares: &[usize], workers: usize) -> f64 {
    let mean = shares.iter().sum::<usize>() as f64 / workers as f64;
    let absent = (workers - shares.len()) as f64 * mean.powi(2);
    let squares = shares.iter().map(|share| (*share as f64 - mean).powi(2)).sum::<f64>() + absent;
    (squares / workers as f64).sqrt() / mean
}

#[test]
fn the_variation_is_none_where_all_have_the_same() {
    for (shares, workers, expected) in
        [(&[5, 5][..], 2, 0.0), (&[10], 2, 1.0), (&[1, 3], 2, 0.5), (&[8], 4, 3.0_f64.sqrt())]
    {
        assert!((variation(shares, workers) - expected).abs() < 1e-9, "{shares:?}");
    }
}
