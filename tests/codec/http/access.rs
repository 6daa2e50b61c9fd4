//! Who may ask what, and how often.

use std::time::Duration;

use millstream::http::{
    Authenticate, Cors, HttpServer, Middleware, RateLimit, Router, Routes, Secret, StatusCode,
};

use super::{World, response};

const SECOND: Duration = Duration::from_secs(1);
const CLOSE: &str = "Connection: close\r\n";

fn ask<M: Middleware>(routes: &Routes<M>, method: &str, path: &str, fields: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{CLOSE}{fields}\r\n");
    World::new(0, HttpServer::new().serve(routes.clone())).ask(request)
}

/// The routes of a small service behind a layer.
fn behind<L: Middleware>(layer: L) -> Routes<impl Middleware> {
    let router = Router::new().layer(layer);
    let router = router.get("/", |exchange| Ok(exchange.respond(StatusCode::OK).body(b"served")));
    router.post("/", |_| Err(StatusCode::CONFLICT.into())).build().expect("they get along")
}

fn served(fields: &str) -> String {
    response("200 OK", &format!("{CLOSE}{fields}"), "served")
}

/// The answer to a preflight request.
fn told(fields: &str) -> String {
    format!("HTTP/1.1 204 No Content\r\n{CLOSE}{fields}\r\n")
}

const PREFLIGHT: &str = "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n";

#[test]
fn pages_of_some_origins_may_do_what_they_are_allowed() {
    let cors = Cors::origins(["https://a.example", "http://localhost:3000"])
        .allow_credentials()
        .allow_fields(["Authorization", "Content-Type"])
        .and_then(|cors| cors.expose_fields(["X-Total", "X-Page"]))
        .expect("they are names")
        .max_age(600 * SECOND);
    let routes = behind(cors);
    let vary = "Vary: Origin\r\n";
    let allowed = |origin: &str| {
        let origin = format!("Access-Control-Allow-Origin: {origin}\r\n");
        format!("{vary}{origin}Access-Control-Allow-Credentials: true\r\n")
    };
    let exposed = "Access-Control-Expose-Headers: X-Total, X-Page\r\n";
    for (fields, expected) in [
        ("", vary.to_owned()),
        ("Origin: https://a.example\r\n", allowed("https://a.example") + exposed),
        ("Origin: http://localhost:3000\r\n", allowed("http://localhost:3000") + exposed),
        ("Origin: https://A.example\r\n", vary.to_owned()),
        ("Origin: https://a.example.evil\r\n", vary.to_owned()),
        ("Origin: null\r\n", vary.to_owned()),
    ] {
        assert_eq!(ask(&routes, "GET", "/", fields), served(&expected), "{fields}");
    }
    // Also what went wrong is for the page to see.
    let conflict = ask(&routes, "POST", "/", "Origin: https://a.example\r\n");
    assert!(conflict.contains(&(allowed("https://a.example") + exposed)), "{conflict}");
    let methods = "Access-Control-Allow-Methods: GET, POST, HEAD, OPTIONS\r\n";
    let rest = "Access-Control-Allow-Headers: Authorization, Content-Type\r\n\
        Access-Control-Max-Age: 600\r\n";
    let all = format!("{}{methods}{rest}", allowed("https://a.example"));
    assert_eq!(ask(&routes, "OPTIONS", "/", PREFLIGHT), told(&all));
    let other = PREFLIGHT.replace("a.example", "b.example");
    assert_eq!(ask(&routes, "OPTIONS", "/", &other), told(vary));
    // These are not preflight requests.
    let allow = "Allow: GET, POST, HEAD, OPTIONS\r\n";
    assert_eq!(ask(&routes, "OPTIONS", "/", ""), told(&format!("{vary}{allow}")));
    let unknown = ask(&routes, "OPTIONS", "/unknown", PREFLIGHT);
    assert!(unknown.starts_with("HTTP/1.1 404 Not Found\r\n"), "{unknown}");
}

#[test]
fn pages_of_all_origins_may_see_what_is_public() {
    let routes = behind(Cors::any().allow_credentials());
    let any = "Access-Control-Allow-Origin: *\r\n";
    assert_eq!(ask(&routes, "GET", "/", ""), served(any));
    assert_eq!(ask(&routes, "GET", "/", "Origin: null\r\n"), served(any));
    let methods = "Access-Control-Allow-Methods: GET, POST, HEAD, OPTIONS\r\n";
    assert_eq!(ask(&routes, "OPTIONS", "/", PREFLIGHT), told(&format!("{any}{methods}")));
    assert!(Cors::any().allow_fields(["a b"]).is_err());
    assert!(Cors::any().expose_fields(["a\r\nb"]).is_err());
}

/// Who asks, and what they are told.
struct User(String);

fn greeting<L: Middleware>(layer: L) -> Routes<impl Middleware> {
    let router = Router::new().layer(layer).get("/", |exchange| {
        let name = exchange.value::<User>().expect("the layer is outside").0.as_str();
        Ok(exchange.respond(StatusCode::OK).body(name.as_bytes()))
    });
    router.build().expect("one route")
}

fn unauthorized(challenge: &str) -> String {
    let text = "Content-Type: text/plain; charset=utf-8\r\n";
    let fields = format!("{CLOSE}WWW-Authenticate: {challenge}\r\n{text}");
    response("401 Unauthorized", &fields, "401 Unauthorized\n")
}

#[test]
fn users_have_names_and_passwords() {
    let password = Secret::new("open: sesame");
    let layer = Authenticate::basic("a \"b\" \\c", move |name: &str, given: &str| {
        (name == "ali" && password.is(given)).then(|| User(name.to_owned()))
    });
    let routes = greeting(layer.expect("it can be sent"));
    let challenge = r#"Basic realm="a \"b\" \\c", charset="UTF-8""#;
    let ask = |fields: &str| ask(&routes, "GET", "/", fields);
    // ali:open: sesame
    for fields in [
        "Authorization: Basic YWxpOm9wZW46IHNlc2FtZQ==\r\n",
        "authorization: bASIC  YWxpOm9wZW46IHNlc2FtZQ==\r\n",
    ] {
        assert_eq!(ask(fields), response("200 OK", CLOSE, "ali"), "{fields}");
    }
    for fields in [
        "",
        "Authorization: \r\n",
        "Authorization: Basic\r\n",
        "Authorization: Basic \r\n",
        "Authorization: BasicYWxpOm9wZW46IHNlc2FtZQ==\r\n",
        "Authorization: Bearer YWxpOm9wZW46IHNlc2FtZQ==\r\n",
        "Authorization: Basic YWxpOm9wZW46IHNlc2FtZQ\r\n",
        "Authorization: Basic ###\r\n",
        "Authorization: Basic YWxpOm9wZW46IHNlc2FtZR==\r\n",
        "Authorization: Basic YWxp\r\n",             // ali
        "Authorization: Basic YWxpOnNlc2FtZQ==\r\n", // ali:sesame
        "Authorization: Basic /////w==\r\n",         // not UTF-8
        "Authorization: Basic YWxpOm9wZW46IHNlc2FtZQ==\r\nAuthorization: Basic eA==\r\n",
    ] {
        assert_eq!(ask(fields), unauthorized(challenge), "{fields}");
    }
    let injected = Authenticate::basic("a\r\nSet-Cookie: b", |_: &str, _: &str| None::<User>);
    assert!(injected.is_err());
}

#[test]
fn users_have_tokens() {
    let token = Secret::new("sesame");
    assert_eq!(format!("{token:?}"), "Secret");
    let layer = Authenticate::bearer("office", move |given: &str| {
        token.is(given).then(|| User("ali".to_owned()))
    });
    let routes = greeting(layer.expect("it can be sent"));
    let ask = |fields: &str| ask(&routes, "GET", "/", fields);
    assert_eq!(ask("Authorization: Bearer sesame\r\n"), response("200 OK", CLOSE, "ali"));
    for given in ["", "Bearer", "Bearer ", "Bearer sesam", "Bearer sesame2", "Basic sesame"] {
        let fields = format!("Authorization: {given}\r\n");
        assert_eq!(ask(&fields), unauthorized(r#"Bearer realm="office""#), "{given}");
    }
}

#[test]
fn an_address_may_ask_so_often() {
    let routes = behind(RateLimit::new(2, 10 * SECOND).burst(3));
    let mut world = World::new(0, HttpServer::new().serve(routes));
    let mut peer = world.connect();
    let mut ask = |seconds: u64, requests: usize| {
        world.0.run(Duration::from_secs(seconds));
        let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(requests);
        world.0.send_all(&mut peer, requests.as_bytes()).expect("it is received");
        world.read_for(&mut peer, SECOND / 10)
    };
    let served = response("200 OK", "", "served");
    let too_many = |seconds: u64| {
        let text = "Content-Type: text/plain; charset=utf-8\r\n";
        let fields = format!("Retry-After: {seconds}\r\n{text}");
        response("429 Too Many Requests", &fields, "429 Too Many Requests\n")
    };
    let burst = served.repeat(3) + &too_many(5);
    assert_eq!(ask(0, 4), burst, "a pause came before");
    assert_eq!(ask(2, 1), too_many(3));
    assert_eq!(ask(3, 2), served.clone() + &too_many(5));
    assert_eq!(ask(10, 3), served.repeat(2) + &too_many(5));
    assert_eq!(ask(50, 4), burst, "no more than a burst is saved");
}
