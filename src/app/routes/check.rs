//! Everything about routes that can be wrong without asking a database.
//! Not here: what the config file's reader sees itself, types and unknown keys; and what only the database knows, tables
//! and columns, which shows at a route's first request.

use super::rule::Rule;
use super::sql::{self, Dialect, dialect};
use super::template::Templates;
use super::{path, program, redirect};
use crate::app::MAX_TAGS;
use crate::config::{Kind, Param, Query, Route, Settings};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

/// The methods that a route may list. HEAD comes with GET.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The first fault, as `file:line: what is wrong and what is allowed`.
pub(crate) fn check(settings: &Settings) -> Result<(), String> {
    let dialect = dialect(settings.database.url.as_ref());
    let templates = Templates::load(settings)?;
    let mut paths = matchit::Router::new();
    let mut taken = Taken::new();
    for route in &settings.routes {
        let at_place = |message: String| format!("{}: {message}", route.place);
        check_route(route, settings, dialect, &templates).map_err(at_place)?;
        check_probes(route, settings).map_err(at_place)?;
        check_among_others(route, &mut paths, &mut taken).map_err(at_place)?;
        check_invalidates(route, &settings.routes).map_err(at_place)?;
    }
    Ok(())
}

fn check_route(
    route: &Route,
    settings: &Settings,
    dialect: Option<Dialect>,
    templates: &Templates,
) -> Result<(), String> {
    if let Some(complaint) = path::complaint(&route.path) {
        return Err(format!("the path {:?} {complaint}", route.path));
    }
    check_methods(&route.methods)?;
    check_status(route)?;
    check_cache(route)?;
    check_tags(route)?;
    check_limits(route, settings)?;
    match &route.kind {
        Kind::Text(_) => Ok(()),
        Kind::Sql(query) => check_query(route, query, dialect),
        Kind::Template { name, query } => {
            check_query(route, query, dialect)?;
            check_template(name, settings, templates)
        }
        Kind::Static(folder) => check_static(route, folder),
        Kind::Redirect(to) => check_redirect(route, to),
        Kind::Program(of_route) => {
            check_params(route, &of_route.params, false)?;
            program::find(&of_route.words[0])
        }
    }
}

/// A route that nobody could reach is not what was meant.
fn check_probes(route: &Route, settings: &Settings) -> Result<(), String> {
    let taken = [("health_path", &settings.health_path), ("ready_path", &settings.ready_path)];
    match taken.into_iter().find(|(_, path)| **path == route.path) {
        Some((key, path)) => {
            Err(format!("the path {path:?} is that of {key}, which the server answers itself"))
        }
        None => Ok(()),
    }
}

fn check_methods(methods: &[String]) -> Result<(), String> {
    if methods.is_empty() {
        return Err(format!("methods is empty; allowed are {}", METHODS.join(", ")));
    }
    match methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
        None => Ok(()),
        Some(head) if head == "HEAD" => Err("methods lists HEAD, which comes with GET by itself".into()),
        Some(unknown) => Err(format!("methods lists {unknown:?}; allowed are {}", METHODS.join(", "))),
    }
}

fn check_status(route: &Route) -> Result<(), String> {
    let (status, name) = (route.status, route.kind.name());
    let outside = |allowed: &str| Err(format!("status is {status}; with {name} it must be {allowed}"));
    match &route.kind {
        Kind::Sql(_) | Kind::Template { .. } | Kind::Program(_) if !(200..=299).contains(&status) => {
            outside("within 200 to 299")
        }
        Kind::Text(_) if !(200..=599).contains(&status) => outside("within 200 to 599"),
        Kind::Static(_) if status != 200 => outside("left out"),
        Kind::Redirect(_) if ![301, 302, 303, 307, 308].contains(&status) => {
            outside("301, 302, 303, 307 or 308")
        }
        Kind::Text(text) if [204, 205, 304].contains(&status) && !text.is_empty() => {
            Err(format!("status is {status}, which has no body; the text must be empty"))
        }
        Kind::Sql(_) | Kind::Template { .. } | Kind::Program(_) if status == 205 => {
            Err("status is 205, which has no body; 204 is the status for that".into())
        }
        Kind::Template { .. } if status == 204 => {
            Err("status is 204, which has no body for a template".into())
        }
        Kind::Text(_)
        | Kind::Sql(_)
        | Kind::Template { .. }
        | Kind::Static(_)
        | Kind::Redirect(_)
        | Kind::Program(_) => Ok(()),
    }
}

/// Whether the route asks the database.
fn has_statements(route: &Route) -> bool {
    route.kind.query().is_some_and(|query| !query.statements.is_empty())
}

fn check_cache(route: &Route) -> Result<(), String> {
    if route.cache.is_zero() {
        Ok(())
    } else if !has_statements(route) && !matches!(route.kind, Kind::Program(_)) {
        Err(format!(
            "cache is of no use to {}, which asks neither database nor program",
            article(&route.kind)
        ))
    } else if !route.methods.iter().any(|method| method == "GET") {
        Err(format!("cache needs GET among the methods, which are {}", route.methods.join(", ")))
    } else if route.status != 200 {
        Err(format!("cache keeps answers of status 200 alone, and the status is {}", route.status))
    } else {
        Ok(())
    }
}

fn article(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text(_) => "a text",
        Kind::Sql(_) => "an sql",
        Kind::Template { .. } => "a template without sql",
        Kind::Static(_) => "a folder",
        Kind::Redirect(_) => "a redirect",
        Kind::Program(_) => "a program",
    }
}

fn check_tags(route: &Route) -> Result<(), String> {
    if !route.invalidates.is_empty() && !has_statements(route) {
        return Err(format!("invalidates is of no use to {}, which changes nothing", article(&route.kind)));
    }
    if !route.tags.is_empty() && route.cache.is_zero() {
        return Err("tags are of no use without cache".into());
    }
    match route.tags.len() {
        0..=MAX_TAGS => Ok(()),
        count => Err(format!("tags has {count} names; allowed are at most {MAX_TAGS}")),
    }
}

/// A misspelt tag would leave old answers standing.
fn check_invalidates(route: &Route, routes: &[Route]) -> Result<(), String> {
    if route.invalidates.is_empty() {
        return Ok(());
    }
    let known: BTreeSet<&String> = routes.iter().flat_map(|route| &route.tags).collect();
    match route.invalidates.iter().find(|tag| !known.contains(tag)) {
        None => Ok(()),
        Some(tag) if known.is_empty() => Err(format!("invalidates has {tag:?}, but no route has tags")),
        Some(tag) => {
            let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
            Err(format!("invalidates has {tag:?}, which is no route's tag; allowed are {}", known.join(", ")))
        }
    }
}

/// What is more than the server lets through would never take effect.
fn check_limits(route: &Route, settings: &Settings) -> Result<(), String> {
    match route.limit_request_body {
        Some(limit) if limit > settings.limit_request_body => Err(format!(
            "limit_request_body is {limit}; allowed: at most the server's, which is {}",
            settings.limit_request_body
        )),
        Some(_) | None => Ok(()),
    }
}

/// `has_page`: some of them were not declared, but come with `page`.
fn check_params(route: &Route, params: &[Param], has_page: bool) -> Result<(), String> {
    let path_names = path::names(&route.path);
    let mut declared = HashSet::new();
    for param in params {
        if !declared.insert(&param.name) {
            return Err(if has_page && ["limit", "offset"].contains(&param.name.as_str()) {
                format!("params declares {:?}, which page brings", param.name)
            } else {
                format!("params declares {:?} twice", param.name)
            });
        }
        if path_names.contains(&param.name) && !param.required {
            return Err(format!("params.{} is in the path, and so is always given", param.name));
        }
        Rule::new(param.clone())?;
    }
    match path_names.iter().find(|name| !declared.contains(name)) {
        None => Ok(()),
        Some(name) => Err(format!("the path has {{{name}}}, which params does not declare")),
    }
}

fn check_query(route: &Route, query: &Query, dialect: Option<Dialect>) -> Result<(), String> {
    check_params(route, &sql::params(query), query.page.is_some())?;
    if query.statements.is_empty() {
        return Ok(());
    }
    let name = route.kind.name();
    let dialect = dialect.ok_or(match &route.kind {
        Kind::Template { .. } => "a template with sql needs [database] url".to_owned(),
        Kind::Text(_) | Kind::Sql(_) | Kind::Static(_) | Kind::Redirect(_) | Kind::Program(_) => {
            format!("a route with {name} needs [database] url")
        }
    })?;
    let statements = sql::prepared(route, query, dialect)?;
    // A forgotten :id can turn "delete this one" into "delete all".
    let is_used = |name: &String| statements.iter().any(|statement| statement.names.contains(name));
    match sql::params(query).iter().find(|param| !is_used(&param.name)) {
        Some(param) if query.params.contains(param) => {
            Err(format!("params declares {:?}, which the sql does not use", param.name))
        }
        Some(param) => Err(format!("page needs :{} in the sql", param.name)),
        None => Ok(()),
    }
}

fn check_template(name: &str, settings: &Settings, templates: &Templates) -> Result<(), String> {
    let Some(folder) = &settings.templates.folder else {
        return Err("a route with template needs [templates] folder".into());
    };
    if templates.has(name) {
        return Ok(());
    }
    Err(format!("the template {name:?} is not in {}", folder.display()))
}

fn check_static(route: &Route, folder: &Path) -> Result<(), String> {
    if route.methods != ["GET"] {
        return Err(format!("methods are {}; a folder is only for GET", route.methods.join(", ")));
    }
    let rest = route.path.split_once("/{*").is_some_and(|(before, _)| !before.contains('{'));
    if !rest {
        return Err(format!("the path {:?} must end with /{{*file}}, and have no other name", route.path));
    }
    if !folder.is_dir() {
        return Err(format!("static is {:?}; allowed: a folder that is there", folder.display().to_string()));
    }
    Ok(())
}

fn check_redirect(route: &Route, to: &str) -> Result<(), String> {
    if let Some(complaint) = redirect::complaint(to) {
        return Err(format!("the redirect {to:?} {complaint}"));
    }
    let names = path::names(&route.path);
    for piece in redirect::pieces(to).map_err(|complaint| format!("the redirect {to:?} {complaint}"))? {
        match piece {
            redirect::Piece::Name { name, .. } if !names.contains(&name) => {
                return Err(format!("the redirect has {{{name}}}, which is not in the path"));
            }
            redirect::Piece::Name { .. } | redirect::Piece::Plain(_) => {}
        }
    }
    Ok(())
}

/// By path: each method that is declared, and where.
type Taken<'a> = HashMap<&'a str, Vec<(&'a str, &'a str)>>;

fn check_among_others<'a>(
    route: &'a Route,
    paths: &mut matchit::Router<()>,
    taken: &mut Taken<'a>,
) -> Result<(), String> {
    let is_known = taken.contains_key(&*route.path);
    let methods = taken.entry(&route.path).or_default();
    for method in &route.methods {
        if let Some((_, place)) = methods.iter().find(|(other, _)| other == method) {
            return Err(format!("{method} {} is already declared at {place}", route.path));
        }
        methods.push((method, &route.place));
    }
    if is_known {
        return Ok(());
    }
    let names = path::names(&route.path);
    if names.iter().collect::<HashSet<_>>().len() < names.len() {
        return Err(format!("the path {:?} has one name twice", route.path));
    }
    paths.insert(&route.path, ()).map_err(|_| {
        let other = taken.iter().find(|(path, _)| collide(path, &route.path));
        let other = other.map_or(String::new(), |(path, methods)| format!(", {path:?} at {}", methods[0].1));
        format!("the path {:?} matches the same requests as another with other names{other}", route.path)
    })
}

fn collide(one: &str, other: &str) -> bool {
    let mut paths = matchit::Router::new();
    one != other && paths.insert(one, ()).is_ok() && paths.insert(other, ()).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::routes::tests::{route, settings, sql_route, text_route};
    use crate::config::ParamKind::{Integer, Text};
    use crate::config::{DatabaseUrl, ParamKind};
    use std::time::Duration;

    fn with(mut route: Route, change: impl FnOnce(&mut Route)) -> Route {
        change(&mut route);
        route
    }

    fn query(path: &str, sql: &str, params: &[(&str, ParamKind)]) -> Route {
        sql_route("GET", path, sql, params)
    }

    #[test]
    fn a_wrong_route_is_named_with_its_place() {
        let text = |path| text_route("GET", path, "hi");
        let by_id = || query("/{id}", "SELECT :id", &[("id", Integer)]);
        let table = [
            (text("items"), "the path \"items\" must start with /"),
            (text("/{id"), "cannot be read: parameters must be registered with a valid name"),
            (text("/{a}/{a}"), "has one name twice"),
            (with(text("/"), |route| route.methods.clear()), "methods is empty; allowed are GET, POST"),
            (text_route("FETCH", "/", ""), "methods lists \"FETCH\"; allowed are GET, POST"),
            (text_route("get", "/", ""), "methods lists \"get\""),
            (text_route("HEAD", "/", ""), "HEAD, which comes with GET by itself"),
            (
                with(text("/"), |route| route.methods.push("GET".into())),
                "GET / is already declared at s.toml:7",
            ),
            (
                with(text("/"), |route| route.status = 199),
                "status is 199; with text it must be within 200 to 599",
            ),
            (with(text("/"), |route| route.status = 204), "the text must be empty"),
            (
                with(by_id(), |route| route.status = 404),
                "status is 404; with sql it must be within 200 to 299",
            ),
            (with(by_id(), |route| route.status = 205), "204 is the status for that"),
            (
                with(text("/"), |route| route.cache = Duration::from_secs(1)),
                "cache is of no use to a text, which asks neither database nor program",
            ),
            (
                with(by_id(), |route| (route.cache, route.status) = (Duration::from_secs(1), 201)),
                "cache keeps answers of status 200 alone, and the status is 201",
            ),
            (
                with(by_id(), |route| {
                    (route.cache, route.methods) = (Duration::from_secs(1), vec!["PUT".into()])
                }),
                "cache needs GET among the methods, which are PUT",
            ),
            (
                with(text("/"), |route| route.invalidates = vec!["a".into()]),
                "invalidates is of no use to a text",
            ),
            (with(by_id(), |route| route.tags = vec!["a".into()]), "tags are of no use without cache"),
            (
                with(by_id(), |route| {
                    (route.cache, route.tags) = (Duration::from_secs(1), vec!["a".into(); 9])
                }),
                "tags has 9 names; allowed are at most 8",
            ),
            (
                with(by_id(), |route| route.invalidates = vec!["a".into()]),
                "invalidates has \"a\", but no route has tags",
            ),
            (
                with(by_id(), |route| {
                    (route.cache, route.tags) = (Duration::from_secs(1), vec!["b".into(), "c".into()]);
                    route.invalidates = vec!["b".into(), "a".into()];
                }),
                "invalidates has \"a\", which is no route's tag; allowed are b, c",
            ),
            (query("/", "", &[]), "the sql has no statement"),
            (query("/", "SELECT 1; SELECT 2", &[]), "the sql has more than one statement"),
            (query("/", "SELECT\n'", &[]), "the string that starts in line 2 of the sql never ends"),
            (query("/", "SELECT ?", &[]), "the sql has a placeholder \"?\"; write a parameter as :name"),
            (query("/", "SELECT :id", &[]), "the sql has :id, which params does not declare"),
            (query("/{id}", "SELECT 1", &[]), "the path has {id}, which params does not declare"),
            (
                query("/{id}", "DELETE FROM a", &[("id", Integer)]),
                "params declares \"id\", which the sql does not use",
            ),
            (query("/", "SELECT :a", &[("a", Integer), ("a", Text)]), "params declares \"a\" twice"),
        ];
        for (route, expected) in table {
            let error = check(&settings(vec![route.clone()])).expect_err(expected);
            assert!(error.starts_with("s.toml:7: ") && error.contains(expected), "{route:?}: {error}");
        }
    }

    #[test]
    fn routes_must_not_collide() {
        let at = |place: &str, method: &str, path: &str| {
            with(text_route(method, path, ""), |route| route.place = place.into())
        };
        let table = [
            (at("a:1", "GET", "/x"), at("a:2", "POST", "/x"), None),
            (at("a:1", "GET", "/x"), at("a:2", "GET", "/{x}"), None),
            (at("a:1", "GET", "/{x}"), at("a:2", "POST", "/{x}"), None),
            (at("a:1", "GET", "/x"), at("a:2", "GET", "/x/"), None),
            (at("a:1", "GET", "/x"), at("a:2", "GET", "/x"), Some("a:2: GET /x is already declared at a:1")),
            (
                at("a:1", "GET", "/{x}"),
                at("a:2", "POST", "/{y}"),
                Some(
                    "a:2: the path \"/{y}\" matches the same requests as another with other names, \"/{x}\" at a:1",
                ),
            ),
        ];
        for (one, other, expected) in table {
            let given = check(&settings(vec![one, other]));
            assert_eq!(given, expected.map_or(Ok(()), |message| Err(message.to_string())));
        }
    }

    #[test]
    fn sql_needs_a_database() {
        let mut settings = settings(vec![route()]);
        assert_eq!(check(&settings), Ok(()));
        settings.database.url = None;
        assert_eq!(check(&settings), Err("s.toml:7: a route with sql needs [database] url".into()));
        // The same text is read as the database would: a cast in one, nonsense to the other.
        settings.database.url = Some(DatabaseUrl::Postgres("postgres://localhost/x".into()));
        settings.routes = vec![query("/", "SELECT $1, E'\\''", &[])];
        assert!(check(&settings).unwrap_err().contains("placeholder \"$1\""));
    }
}
