//! A request of HTTP/2 as HTTP/1.1 would have it, so that one gate and one app serve both: the target in origin form, the host
//! in its field. What is in doubt is left so that the gate sees it.

use crate::worker::gate::Refusal;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

/// The request, and what is wrong with it that does not show any more.
pub(super) fn in_origin_form<B>(mut request: Request<B>) -> (Request<B>, Option<Refusal>) {
    // RFC 9113, 8.2.1; HTTP/1 takes such space off.
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_spaced =
        |value: &HeaderValue| is_space(value.as_bytes().first()) || is_space(value.as_bytes().last());
    let doubt = request.headers().values().any(is_spaced).then_some(Refusal::SPACE);
    join_cookies(request.headers_mut());
    let uri = request.uri();
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    if let Some(authority) = uri.authority().filter(|_| is_web && request.method() != Method::CONNECT) {
        let host =
            HeaderValue::from_str(authority.as_str()).expect("an authority is made of such characters");
        let target = uri.path_and_query().cloned().map(Uri::from);
        let headers = request.headers_mut();
        let is_same = headers.get(header::HOST).is_some_and(|given| is_same_host(given, &host));
        if !is_same {
            // One that says something else is then one of two (RFC 9113, 8.3.1).
            headers.append(header::HOST, host);
        }
        if let Some(target) = target {
            *request.uri_mut() = target;
        }
    }
    (request, doubt)
}

/// Clients take them apart for the sake of compression; an app is to see one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
        headers.insert(header::COOKIE, joined.expect("it is made of values"));
    }
}

fn is_same_host(one: &HeaderValue, other: &HeaderValue) -> bool {
    one.as_bytes().eq_ignore_ascii_case(other.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(method: &str, uri: &str, fields: &[(&str, &str)]) -> (String, Vec<String>, bool) {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (request, doubt) = in_origin_form(request.body(()).unwrap());
        let hosts = request.headers().get_all("host").iter();
        let hosts = hosts.map(|host| host.to_str().unwrap().to_owned()).collect();
        (request.uri().to_string(), hosts, doubt.is_some())
    }

    #[test]
    fn cookies_are_joined() {
        for (given, wanted) in
            [(&[][..], &[][..]), (&["a=1"], &["a=1"]), (&["a=1", "b=2", ""], &["a=1; b=2; "])]
        {
            let mut headers = HeaderMap::new();
            for cookie in given {
                headers.append("cookie", HeaderValue::from_static(cookie));
            }
            join_cookies(&mut headers);
            assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn the_authority_is_the_host_and_what_is_in_doubt_shows() {
        type Given<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        type Wanted<'a> = (&'a str, &'a [&'a str], bool);
        let table: &[(Given<'_>, Wanted<'_>)] = &[
            (("GET", "https://a.example/b?c=d", &[]), ("/b?c=d", &["a.example"], false)),
            (("GET", "http://a.example:80/", &[("host", "A.example:80")]), ("/", &["A.example:80"], false)),
            (
                ("GET", "http://a.example/", &[("host", "b.example")]),
                ("/", &["b.example", "a.example"], false),
            ),
            (("GET", "http://u@a.example/", &[]), ("/", &["u@a.example"], false)),
            (("OPTIONS", "*", &[("host", "a.example")]), ("*", &["a.example"], false)),
            (("GET", "/", &[]), ("/", &[], false)),
            (("GET", "ftp://a.example/", &[]), ("ftp://a.example/", &[], false)),
            (("CONNECT", "a.example:80", &[]), ("a.example:80", &[], false)),
            (("GET", "https://a.example/", &[("x", " b")]), ("/", &["a.example"], true)),
            (("GET", "https://a.example/", &[("x", "b\t")]), ("/", &["a.example"], true)),
        ];
        for ((method, uri, fields), (target, hosts, is_in_doubt)) in table {
            let wanted =
                ((*target).to_owned(), hosts.iter().map(|host| (*host).to_owned()).collect(), *is_in_doubt);
            assert_eq!(shown(method, uri, fields), wanted, "{method} {uri} {fields:?}");
        }
    }
}
