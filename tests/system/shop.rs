//! The stock app of the demo, as the tests use it: a shop with one table. Not here: the tests.

use crate::support::Program;

/// The demo's routes over one database URL; `{backend}` is `sqlite` or `postgres`.
pub fn settings(database: &str) -> String {
    format!(
        r#"
workers = 2

[database]
{database}

[[route]]
path = "/"
methods = ["GET"]
text = "Hello from the shop\n"

[[route]]
path = "/items"
methods = ["GET"]
sql = "select id, name, price from items order by id desc limit 100"

[[route]]
path = "/items/{{id}}"
methods = ["GET"]
sql = "select id, name, price from items where id = :id"
params = {{ id = "integer" }}
one = true
cache = "30s"

[[route]]
path = "/items"
methods = ["POST"]
sql = "insert into items (name, price) values (:name, :price) returning id, name, price"
params = {{ name = "text", price = "integer" }}
one = true
status = 201
"#
    )
}

pub const SETUP_SQLITE: &str = "
create table if not exists items (id integer primary key, name text not null, price integer not null);
insert into items (name, price) select 'apple', 30 where not exists (select 1 from items);
insert into items (name, price) select 'pear', 40 where (select count(*) from items) = 1;
";

pub const SETUP_POSTGRES: &str = "
create table if not exists items (
    id integer primary key generated always as identity, name text not null, price integer not null);
insert into items (name, price) select 'apple', 30 where not exists (select 1 from items);
insert into items (name, price) select 'pear', 40 where (select count(*) from items) = 1;
";

/// The shop over a SQLite file in the program's directory.
pub fn on_sqlite() -> Program {
    with_scripts(Program::stock())
        .config(&settings("url = \"sqlite:shop.db\"\nsetup = \"setup-{backend}.sql\""))
}

/// The same settings file; another URL given from outside.
pub fn on_postgres(url: &str) -> Program {
    // An URL from outside runs no script unless asked to.
    on_sqlite().variable("FERRICORN_DATABASE_URL", url).args("--setup setup-{backend}.sql")
}

fn with_scripts(program: Program) -> Program {
    program.file("setup-sqlite.sql", SETUP_SQLITE).file("setup-postgres.sql", SETUP_POSTGRES)
}
