//! The page of benches/database/service.rs from axum alone: tokio-postgres, its connections in a deadpool, its statement
//! prepared once for each. One current-thread runtime, the quickest there is on one core. No timers, no limits, no log, no
//! drain. Takes `-b HOST:PORT`, and the database's URL and the pool's size from the environment.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod};
use tokio::net::TcpListener;
use tokio_postgres::NoTls;

const ITEM: &str = "SELECT name, price FROM items WHERE id = $1";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let bind = std::env::args().skip_while(|arg| arg != "-b").nth(1).expect("-b HOST:PORT");
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set"));
    let config = variable("FERRICORN_DATABASE_URL").parse().expect("a URL of a database");
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config, NoTls, recycling);
    let size = variable("POOL_SIZE").parse().expect("a number");
    let pool = Pool::builder(manager).max_size(size).build().expect("a pool");
    let app = Router::new().route("/pooled", get(pooled)).with_state(pool);
    let listener = TcpListener::bind(bind).await.expect("the address is free");
    eprintln!("- INFO [axum] listening on={}", listener.local_addr().expect("it is bound"));
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), app)
        .await
        .expect("it serves");
}

async fn pooled(State(pool): State<Pool>) -> Result<String, StatusCode> {
    item(&pool).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn item(pool: &Pool) -> Result<String, PoolError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(ITEM).await?;
    let row = client.query_one(&statement, &[&1_i32]).await?;
    let (name, price): (&str, i32) = (row.get(0), row.get(1));
    Ok(format!("{name} {price}\n"))
}
