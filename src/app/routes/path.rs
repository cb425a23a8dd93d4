//! A route's path: whether it can ever match, and the names in it.
//! Not here: matching, which is axum's.

/// The names of `{name}` and `{*rest}`, in order. `{{` and `}}` are plain braces.
pub(super) fn names(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    let plain = path.replace("{{", "").replace("}}", "");
    for part in plain.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or_default();
        names.push(name.trim_start_matches('*').to_string());
    }
    names
}

/// Why no request would ever take this path, as the server compares it: the bytes that came, percent-encoding and all.
pub(super) fn complaint(path: &str) -> Option<String> {
    let complaint = if !path.starts_with('/') {
        "must start with /"
    } else if path.contains(['?', '#']) {
        "must not contain ? or #; parameters of the query are declared in params alone"
    } else if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
        "must be printable ASCII; write anything else percent-encoded"
    } else if path.split('/').any(|segment| segment.starts_with([':', '*'])) {
        "must not have a segment that starts with : or *; write {name} or {*rest}"
    } else {
        return match matchit::Router::new().insert(path, ()) {
            Ok(()) => None,
            Err(error) => Some(format!("cannot be read: {}", lower(&error.to_string()))),
        };
    };
    Some(complaint.into())
}

fn lower(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_braces() {
        let table: &[(&str, &[&str])] = &[
            ("/", &[]),
            ("/items/{id}", &["id"]),
            ("/a/{b}/c-{d}/{*rest}", &["b", "d", "rest"]),
            ("/{{a}}/{b}", &["b"]),
        ];
        for (path, expected) in table {
            assert_eq!(names(path), *expected, "{path}");
        }
    }

    #[test]
    fn paths_that_never_match_are_refused() {
        let table = [
            ("/", None),
            ("/a//b/%C3%A4", None),
            ("/a/{id}/{*rest}", None),
            ("/{{a}}", None),
            ("", Some("must start with /")),
            ("items", Some("must start with /")),
            ("/a?b=c", Some("must not contain ? or #")),
            ("/ä", Some("printable ASCII")),
            ("/a b", Some("printable ASCII")),
            ("/a/:id", Some("{name}")),
            ("/a/*", Some("{*rest}")),
            ("/a/{id", Some("valid name")),
            ("/a/{}", Some("valid name")),
            ("/a/{b}{c}", Some("only one parameter")),
            ("/{*rest}/a", Some("only allowed at the end")),
        ];
        for (path, expected) in table {
            let given = complaint(path);
            let fits = match (&given, expected) {
                (Some(given), Some(part)) => given.contains(part),
                (given, expected) => given.is_none() && expected.is_none(),
            };
            assert!(fits, "{path}: {given:?}");
        }
    }
}
