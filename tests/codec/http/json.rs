//! Values in paths, queries and contents, and what clients are told that send others.

use std::collections::BTreeMap;

use millstream::http::{Exchange, Failure, HttpServer, OwnedResponse, Router, Routes, StatusCode};
use serde::{Deserialize, Serialize};

use super::{World, response};

const CLOSE: &str = "Connection: close\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

#[derive(Deserialize, Serialize)]
struct Place {
    town: String,
    floor: u8,
}

#[derive(Deserialize, Serialize)]
struct Person<'a> {
    name: &'a str,
    #[serde(default)]
    places: Vec<Place>,
}

#[derive(Deserialize, Serialize)]
struct Page {
    #[serde(default)]
    tag: Vec<String>,
    limit: Option<u32>,
    next: Option<bool>,
}

#[derive(Deserialize, Serialize)]
struct Key {
    kind: String,
    id: u64,
}

fn routes() -> Routes {
    Router::new()
        .get("/{kind}/{id}", |exchange| {
            let key: Key = exchange.bind_path()?;
            exchange.respond(StatusCode::OK).json_value(&key)
        })
        .get("/pages", |exchange| {
            let page: Page = exchange.bind_query()?;
            exchange.respond(StatusCode::OK).json_value(&page)
        })
        .post("/form", |exchange| {
            let page: Page = exchange.bind_form()?;
            exchange.respond(StatusCode::OK).json_value(&page)
        })
        .post("/people", |exchange| {
            let person: Person<'_> = exchange.bind_json()?;
            if person.name.is_empty() {
                return Err(Failure::invalid("it is empty", Some("name")));
            }
            exchange.respond(StatusCode::CREATED).json_value(&person)
        })
        .get("/broken", |exchange: Exchange<'_>| {
            let no_json = BTreeMap::from([((1, 2), 3)]);
            exchange.respond(StatusCode::OK).field("Own", "x")?.json_value(&no_json)
        })
        .get("/later", |exchange| {
            let (responder, answered) = exchange.later();
            responder.send(OwnedResponse::new(StatusCode::OK).json_value(&[1, 2])?);
            Ok(answered)
        })
        .build()
        .expect("they get along")
}

fn get(target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{CLOSE}\r\n");
    World::new(0, HttpServer::new().serve(routes())).ask(request)
}

fn post(path: &str, kind: &str, content: &str) -> String {
    let length = content.len();
    let fields = format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n");
    let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{CLOSE}{fields}\r\n{content}");
    World::new(0, HttpServer::new().serve(routes())).ask(request)
}

fn json(status: &str, content: &str) -> String {
    response(status, &format!("{CLOSE}{JSON}"), content)
}

#[test]
fn paths_have_values() {
    let good = json("200 OK", r#"{"kind":"a/b & c","id":7}"#);
    assert_eq!(get("/a%2Fb%20&%20c/7"), good);
    for (id, error) in
        [("x", "invalid digit found in string"), ("-1", "invalid digit found in string")]
    {
        let problem = format!(r#"{{"error":"{error}","field":"id"}}"#);
        assert_eq!(get(&format!("/a/{id}")), json("400 Bad Request", &problem), "{id}");
    }
}

#[test]
fn queries_have_values() {
    for (query, expected) in [
        ("", r#"{"tag":[],"limit":null,"next":null}"#),
        ("?", r#"{"tag":[],"limit":null,"next":null}"#),
        ("?limit=5&next=true&more=x", r#"{"tag":[],"limit":5,"next":true}"#),
        ("?tag=a+b&tag=c%26d", r#"{"tag":["a b","c&d"],"limit":null,"next":null}"#),
    ] {
        assert_eq!(get(&format!("/pages{query}")), json("200 OK", expected), "{query}");
    }
    for (query, field) in [("limit=x", "limit"), ("next=2", "next"), ("limit=1&limit=2", "limit")] {
        let answer = get(&format!("/pages?{query}"));
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.ends_with(&format!(r#","field":"{field}"}}"#)), "{answer}");
    }
}

#[test]
fn forms_have_values() {
    let form = "application/x-www-form-urlencoded";
    let good = json("200 OK", r#"{"tag":["€"],"limit":1,"next":null}"#);
    assert_eq!(post("/form", form, "tag=%E2%82%AC&limit=1"), good);
    let bad = json(
        "422 Unprocessable Content",
        r#"{"error":"invalid digit found in string","field":"limit"}"#,
    );
    assert_eq!(post("/form", form, "limit=x"), bad);
    let other = json("415 Unsupported Media Type", r#"{"error":"the content is not a form"}"#);
    assert_eq!(post("/form", "application/json", "{}"), other);
}

#[test]
fn contents_have_values() {
    let person = r#"{"name":"ali","places":[{"town":"Bonn","floor":3}]}"#;
    for kind in ["application/json", "Application/JSON ; charset=utf-8", "application/x+json"] {
        assert_eq!(post("/people", kind, person), json("201 Created", person), "{kind}");
    }
    for kind in ["", "text/json", "application/jsonp", "application/x-www-form-urlencoded"] {
        let problem = r#"{"error":"the content is not JSON"}"#;
        assert_eq!(post("/people", kind, person), json("415 Unsupported Media Type", problem));
    }
    let (bad, wrong) = ("400 Bad Request", "422 Unprocessable Content");
    for (content, status, field) in [
        ("", bad, ""),
        ("{", bad, ""),
        (r#"{"name":"ali"} x"#, bad, ""),
        (r#"{"name":"ali","places":[{"town":"#, bad, "places[0].town"),
        ("[[[", wrong, "[0]"),
        ("{}", wrong, ""),
        (r#"{"name":1}"#, wrong, "name"),
        (r#"{"name":""}"#, wrong, "name"),
        (r#"{"name":"a","name":"b"}"#, wrong, ""),
        (r#"{"name":"a","places":[{"town":"b","floor":256}]}"#, wrong, "places[0].floor"),
        (r#"{"name":"a","places":[{"town":"b","floor":1},{"town":"c"}]}"#, wrong, "places[1]"),
    ] {
        let answer = post("/people", "application/json", content);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n{CLOSE}{JSON}")), "{answer}");
        let has_field = format!(r#"","field":"{field}"}}"#);
        match field {
            "" => assert!(answer.ends_with("\"}") && !answer.contains("field\":"), "{answer}"),
            _ => assert!(answer.ends_with(&has_field), "{answer}"),
        }
    }
    // A client does not get back what it sent, however long.
    let long = format!(r#"{{"name":"a","places":"{}"}}"#, "€".repeat(10_000));
    assert!(post("/people", "application/json", &long).len() < 2_000);
    let deep = format!(r#"{{"name":"a","other":{}"#, "[".repeat(100_000));
    assert!(post("/people", "application/json", &deep).starts_with("HTTP/1.1 400 Bad Request\r\n"));
}

#[test]
fn answers_are_values() {
    assert_eq!(get("/later"), json("200 OK", "[1,2]"));
    let broken = get("/broken");
    assert!(broken.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{broken}");
    assert!(!broken.contains("Own"), "{broken}");
}
