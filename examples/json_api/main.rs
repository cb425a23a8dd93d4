//! A JSON API over SQLite: items that are listed, made, changed and removed; and orders, which take all that they ask for from
//! the stock, or nothing. `cargo run --example json_api -- -c examples/json_api/server.toml`, then
//! `curl --json '{"name": "oak", "price": 3, "stock": 5}' 127.0.0.1:8000/items`.
//! What a request gets wrong is in refusal.rs.

mod refusal;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ferricorn::{Error, Pool, SqliteSession, Worker};
use refusal::{Check, Checked, Refusal};
use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

type Db = State<Pool<SqliteSession>>;

/// An answer never has more items.
const PAGE: u32 = 100;
/// An order never has more lines.
const MAX_LINES: usize = 50;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Item {
    #[serde(default, skip_deserializing)]
    id: i64,
    name: String,
    price: u32,
    stock: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    item: i64,
    count: u32,
}

#[derive(Deserialize)]
struct Page {
    /// The id that the page begins behind.
    #[serde(default)]
    after: i64,
}

fn main() -> ExitCode {
    ferricorn::run(|worker: Worker| {
        Router::new()
            .route("/items", get(list).post(create))
            .route("/items/{id}", get(read).put(replace).delete(remove))
            .route("/orders", post(order))
            .with_state(worker.sqlite())
    })
}

async fn list(State(db): Db, Query(page): Query<Page>) -> Result<Json<Vec<Item>>, Error> {
    let items = db.run(move |db| {
        let mut select = db.prepare_cached("SELECT * FROM items WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        Ok(select.query_map((page.after, PAGE), item)?.collect::<Result<_, _>>()?)
    });
    Ok(Json(items.await?))
}

async fn create(State(db): Db, Checked(new): Checked<Item>) -> Result<(StatusCode, Json<Item>), Refusal> {
    let insert = "INSERT INTO items (name, price, stock) VALUES (?1, ?2, ?3) RETURNING *";
    let made =
        db.run(move |db| Ok(db.prepare_cached(insert)?.query_row((new.name, new.price, new.stock), item)?));
    Ok((StatusCode::CREATED, Json(made.await?)))
}

async fn read(State(db): Db, Path(id): Path<i64>) -> Result<Json<Item>, Refusal> {
    let select = "SELECT * FROM items WHERE id = ?1";
    let found = db.run(move |db| Ok(db.prepare_cached(select)?.query_row([id], item).optional()?));
    found.await?.map(Json).ok_or(Refusal::NotFound)
}

async fn replace(
    State(db): Db,
    Path(id): Path<i64>,
    Checked(new): Checked<Item>,
) -> Result<Json<Item>, Refusal> {
    let update = "UPDATE items SET name = ?2, price = ?3, stock = ?4 WHERE id = ?1 RETURNING *";
    let values = (id, new.name, new.price, new.stock);
    let found = db.run(move |db| Ok(db.prepare_cached(update)?.query_row(values, item).optional()?));
    found.await?.map(Json).ok_or(Refusal::NotFound)
}

async fn remove(State(db): Db, Path(id): Path<i64>) -> Result<StatusCode, Refusal> {
    let removed =
        db.run(move |db| Ok(db.prepare_cached("DELETE FROM items WHERE id = ?1")?.execute([id])?));
    if removed.await? == 0 { Err(Refusal::NotFound) } else { Ok(StatusCode::NO_CONTENT) }
}

/// All lines or none: `Err` takes back what the lines before it have done.
async fn order(State(db): Db, Checked(lines): Checked<Vec<Line>>) -> Result<StatusCode, Refusal> {
    let ordered = db.transaction(move |db| {
        for Line { item, count } in lines {
            let take = "UPDATE items SET stock = stock - ?2 WHERE id = ?1 AND stock >= ?2";
            if db.prepare_cached(take)?.execute((item, count))? == 0 {
                return Err(Error::other(Refusal::Conflict(format!("there are not {count} of item {item}"))));
            }
            let note = "INSERT INTO orders (item, count) VALUES (?1, ?2)";
            db.prepare_cached(note)?.execute((item, count))?;
        }
        Ok(StatusCode::CREATED)
    });
    Ok(ordered.await?)
}

fn item(row: &Row) -> rusqlite::Result<Item> {
    Ok(Item {
        id: row.get("id")?,
        name: row.get("name")?,
        price: row.get("price")?,
        stock: row.get("stock")?,
    })
}

impl Check for Item {
    fn fault(&self) -> Option<&'static str> {
        let is_name = (1..=100).contains(&self.name.trim().len());
        (!is_name).then_some("name: 1 to 100 bytes, not only blanks")
    }
}

impl Check for Vec<Line> {
    fn fault(&self) -> Option<&'static str> {
        let no_lines = self.is_empty() || self.len() > MAX_LINES;
        let no_count = self.iter().any(|line| line.count == 0);
        no_lines.then_some("1 to 50 lines").or(no_count.then_some("count: at least 1"))
    }
}
