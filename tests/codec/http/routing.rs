//! Which handler a request comes to.

use millstream::http::{
    Answered, Exchange, Failure, HttpServer, Middleware, Next, PatternError, RouteError, Router,
    Routes, StatusCode,
};

use super::{World, refusal, response};

/// Says which route it is, and what its parameters are.
fn say(
    names: &'static [&str],
) -> impl Fn(Exchange<'_>) -> Result<Answered, Failure> + Send + Sync + 'static {
    move |exchange| {
        let mut text = exchange.pattern().unwrap_or("none").to_owned();
        for name in names {
            text += &format!(" {name}={:?}", exchange.param(name).unwrap_or_default());
        }
        assert!(exchange.param("other").is_none());
        Ok(exchange.respond(StatusCode::OK).body(text.as_bytes()))
    }
}

fn ask<M: Middleware>(routes: &Routes<M>, method: &str, target: &str) -> String {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    World::new(0, HttpServer::new().serve(routes.clone())).ask(request)
}

fn ok(content: &str) -> String {
    response("200 OK", "Connection: close\r\n", content)
}

#[test]
fn a_path_comes_to_the_route_that_says_the_most() {
    let routes = Router::new()
        .get("/", say(&[]))
        .get("/users", say(&[]))
        .get("/users/", say(&[]))
        .get("/users/me", say(&[]))
        .get("/users/{id}", say(&["id"]))
        .get("/users/{id}/notes/{note}.txt", say(&["id", "note"]))
        .get("/files/{*path}", say(&["path"]))
        .get("/{{braces}}", say(&[]))
        .build()
        .expect("they get along");
    for (target, expected) in [
        ("/", "/"),
        ("/?a=b", "/"),
        ("http://a", "/"),
        ("http://a/users?x", "/users"),
        ("/users", "/users"),
        ("/users/", "/users/"),
        ("/users/me", "/users/me"),
        ("/users/mine", r#"/users/{id} id="mine""#),
        ("/users/%6de", r#"/users/{id} id="me""#),
        ("/users/a%2Fb%252F", r#"/users/{id} id="a/b%2F""#),
        ("/users/a+b", r#"/users/{id} id="a+b""#),
        ("/users/%E2%82%AC", r#"/users/{id} id="€""#),
        ("/users/7/notes/x.txt", r#"/users/{id}/notes/{note}.txt id="7" note="x""#),
        ("/files/a/../b//c", r#"/files/{*path} path="a/../b//c""#),
        ("/{braces}", "/{{braces}}"),
    ] {
        assert_eq!(ask(&routes, "GET", target), ok(expected), "{target}");
    }
    for target in ["/user", "//users", "/Users", "/users/7/", "/files/", "/users/7/notes/.txt"] {
        assert_eq!(ask(&routes, "GET", target), refusal("404 Not Found"), "{target}");
    }
    for target in ["/users/%", "/users/%4", "/users/%zz", "/users/%ff", "/files/a/%C0%AF"] {
        assert_eq!(ask(&routes, "GET", target), refusal("400 Bad Request"), "{target}");
    }
}

#[test]
fn methods_that_a_path_lacks_are_told_what_it_has() {
    let routes = Router::new()
        .get("/both", |exchange| Ok(exchange.respond(StatusCode::OK).body(b"got")))
        .post("/both", |exchange| Ok(exchange.respond(StatusCode::CREATED).empty()))
        .head("/head", |exchange| Ok(exchange.respond(StatusCode::ACCEPTED).empty()))
        .get("/head", |exchange| Ok(exchange.respond(StatusCode::OK).empty()))
        .options("/own", |exchange| Ok(exchange.respond(StatusCode::OK).body(b"own")))
        .route("PURGE", "/own", |exchange| Ok(exchange.respond(StatusCode::OK).body(b"gone")))
        .any("/any", |exchange| {
            let method = exchange.method();
            Ok(exchange.respond(StatusCode::OK).body(method.as_bytes()))
        })
        .delete("/any", |exchange| Ok(exchange.respond(StatusCode::NO_CONTENT).empty()))
        .build()
        .expect("they get along");
    let close = "Connection: close\r\n";
    let refused = |allow: &str| {
        let text = "Content-Type: text/plain; charset=utf-8\r\n";
        let fields = format!("{close}Allow: {allow}\r\n{text}");
        response("405 Method Not Allowed", &fields, "405 Method Not Allowed\n")
    };
    let options = |allow: &str| format!("HTTP/1.1 204 No Content\r\n{close}Allow: {allow}\r\n\r\n");
    let both = "GET, POST, HEAD, OPTIONS";
    let cases = [
        ("GET", "/both", ok("got")),
        ("HEAD", "/both", ok("got").replace("\r\n\r\ngot", "\r\n\r\n")),
        ("POST", "/both", response("201 Created", close, "")),
        ("PUT", "/both", refused(both)),
        ("get", "/both", refused(both)),
        ("OPTIONS", "/both", options(both)),
        ("HEAD", "/head", response("202 Accepted", close, "")),
        ("OPTIONS", "/head", options("HEAD, GET, OPTIONS")),
        ("OPTIONS", "/own", ok("own")),
        ("PURGE", "/own", ok("gone")),
        ("GET", "/own", refused("OPTIONS, PURGE")),
        ("OPTIONS", "/any", ok("OPTIONS")),
        ("BREW", "/any", ok("BREW")),
        ("DELETE", "/any", format!("HTTP/1.1 204 No Content\r\n{close}\r\n")),
        ("OPTIONS", "*", format!("HTTP/1.1 204 No Content\r\n{close}\r\n")),
        ("OPTIONS", "/none", refusal("404 Not Found")),
    ];
    for (method, target, expected) in cases {
        assert_eq!(ask(&routes, method, target), expected, "{method} {target}");
    }
}

/// Adds its name to the response.
struct Named(&'static str);

impl Middleware for Named {
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        exchange.outgoing().push("Layer", self.0)?;
        next.handle(exchange)
    }
}

#[test]
fn groups_and_mounted_routers_have_their_own_layers() {
    let admin = Router::new()
        .layer(Named("admin"))
        .get("", say(&[]))
        .group("/{kind}", |kind| kind.get("/{id}", say(&["kind", "id"])).layer(Named("kind")));
    let routes = Router::new()
        .get("/", say(&[]))
        .layer(Named("all"))
        .group("", |same| same.layer(Named("same")).get("/same", say(&[])))
        .mount("/admin", admin)
        .layer(Named("inner"))
        .build_with(|exchange| Ok(exchange.respond(StatusCode::OK).body(b"fallback")))
        .expect("they get along");
    let layered = |layers: &[&str], status: &str, more: &str, content: &str| {
        let layers: String = layers.iter().map(|name| format!("Layer: {name}\r\n")).collect();
        response(status, &format!("Connection: close\r\n{layers}{more}"), content)
    };
    let admin = ["all", "inner", "admin"];
    for (method, target, layers, status, content) in [
        ("GET", "/", &["all", "inner"][..], "200 OK", "/"),
        ("GET", "/same", &["all", "inner", "same"], "200 OK", "/same"),
        ("GET", "/admin", &admin, "200 OK", "/admin"),
        (
            "GET",
            "/admin/users/7",
            &["all", "inner", "admin", "kind"],
            "200 OK",
            r#"/admin/{kind}/{id} kind="users" id="7""#,
        ),
        ("GET", "/admin/", &["all", "inner"], "200 OK", "fallback"),
    ] {
        let expected = layered(layers, status, "", content);
        assert_eq!(ask(&routes, method, target), expected, "{target}");
    }
    let more = "Allow: GET, HEAD, OPTIONS\r\nContent-Type: text/plain; charset=utf-8\r\n";
    let status = "405 Method Not Allowed";
    let expected = layered(&admin, status, more, &format!("{status}\n"));
    assert_eq!(ask(&routes, "PUT", "/admin"), expected);
}

#[test]
fn routes_that_are_in_each_others_way_are_named() {
    let error = |router: Router| router.build().expect_err("it is wrong").to_string();
    let router = |patterns: &[&str]| {
        patterns.iter().fold(Router::new(), |router, pattern| router.get(pattern, say(&[])))
    };
    for (patterns, expected) in [
        (&["/a", "/{x}", "/{y}"][..], r#"the pattern "/{y}" is in the way of "/{x}""#),
        (&["/b/{x}/c", "/b/{y}/c"], r#"the pattern "/b/{y}/c" is in the way of "/b/{x}/c""#),
        (&["/{*a}", "/b", "/{c}"], r#"the pattern "/{c}" is in the way of "/{*a}""#),
        (&["/a/{x}", "/a/{*y}"], r#"the pattern "/a/{*y}" is in the way of "/a/{x}""#),
        (&["/a", "/b", "/a"], r#"GET of "/a" has two handlers"#),
        (&["a"], r#""a" is not a pattern: it does not begin with a slash"#),
        (&[""], r#""" is not a pattern: it does not begin with a slash"#),
        (&["/a b"], r#""/a b" is not a pattern: no path has such a character"#),
        (&["/a?b"], r#""/a?b" is not a pattern: no path has such a character"#),
        (&["/{}"], r#""/{}" is not a pattern: a parameter is a name in braces"#),
        (&["/{a"], r#""/{a" is not a pattern: a parameter is a name in braces"#),
        (&["/{a}-{b}"], r#""/{a}-{b}" is not a pattern: a segment has two parameters"#),
        (&["/{a}/{a}"], r#""/{a}/{a}" is not a pattern: two parameters have one name"#),
        (&["/{*a}/b"], r#""/{*a}/b" is not a pattern: the rest of a path is at its end"#),
    ] {
        assert_eq!(error(router(patterns)), expected);
    }
    let nested = || Router::new().any("/{id}", say(&[]));
    let both = Router::new().any("/a/{id}", say(&[])).mount("/a", nested());
    assert_eq!(error(both), r#"any of "/a/{id}" has two handlers"#);
    let same = Router::new().group("/{id}", |group| group.mount("", nested()));
    let (pattern, source) = ("/{id}/{id}".to_owned(), PatternError::SameName);
    assert_eq!(same.build().expect_err("one name"), RouteError::Pattern { pattern, source });
    let slash = Router::new().mount("/a/", nested());
    assert_eq!(error(slash), r#""/a/" is not a pattern: a prefix does not end with a slash"#);
    let method = Router::new().route("GET ", "/", say(&[]));
    assert_eq!(error(method), r#""GET " is not the name of a method"#);
}
