//! The gateway: both protocols on one port, the way from one to the other, and the metrics.

use std::io::{BufRead, Write};

use crate::common::{end, read_to_end};
use crate::programs::{Program, connect};
use millstream::rpc::{Client, Encoding, Request};

/// What is answered to this request, with which its connection ends.
fn answer(address: &str, request: &str) -> String {
    let mut client = connect(address);
    client.write_all(request.as_bytes()).expect("it reads");
    end(&client);
    String::from_utf8(read_to_end(&mut client)).expect("it is text")
}

/// Status and content of what is answered to a call.
fn call(address: &str, method: &str, arguments: &str) -> (String, String) {
    let length = arguments.len();
    let head = format!("POST /rpc/{method} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n");
    let answer = answer(address, &format!("{head}Content-Length: {length}\r\n\r\n{arguments}"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("it has a head");
    let status = head.get("HTTP/1.1 ".len()..).and_then(|line| line.get(..3));
    (status.expect("it has a status").to_owned(), body.to_owned())
}

fn get(address: &str, path: &str) -> String {
    answer(address, &format!("GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"))
}

#[test]
fn a_gateway_leads_from_http_to_rpc() {
    let arguments = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--reactors", "1"];
    let mut gateway = Program::of("gateway", &arguments);
    let (address, mut said) = gateway.address_and_more();
    let mut line = String::new();
    said.read_line(&mut line).expect("it is text");
    let metrics = line.trim().strip_prefix("metrics on ").expect("it says where").to_owned();

    let error = |code: &str, message: &str| format!(r#"{{"code":"{code}","message":"{message}"}}"#);
    let ok = |value: &str| ("200".to_owned(), value.to_owned());
    assert_eq!(call(&address, "demo.Calculator/divide", "[7, 2]"), ok("[3,1]"));
    assert_eq!(call(&address, "demo.Calculator/sum", "[[1, 2, 3], 5]"), ok("6"));
    let by_zero = error("INVALID_ARGUMENT", "7 divided by 0");
    assert_eq!(call(&address, "demo.Calculator/divide", "[7, 0]"), ("400".to_owned(), by_zero));
    for (method, arguments, status, code) in [
        ("demo.Calculator/divide", "[7, ", "400", "INVALID_ARGUMENT"),
        ("demo.Calculator/sum", "[[9223372036854775807, 1], 0]", "400", "OUT_OF_RANGE"),
        ("demo.Calculator/nothing", "[]", "501", "UNIMPLEMENTED"),
        ("", "[]", "400", "INVALID_ARGUMENT"),
    ] {
        let (told, body) = call(&address, method, arguments);
        assert_eq!(told, status, "{method} {arguments}: {body}");
        assert!(body.contains(&format!(r#""code":"{code}""#)), "{body}");
    }
    assert!(get(&address, "/rpc/demo.Calculator/divide").starts_with("HTTP/1.1 405 "));
    assert!(get(&address, "/metrics").starts_with("HTTP/1.1 404 "));
    assert!(answer(&address, "no such protocol\r\n\r\n").starts_with("HTTP/1.1 400 "));

    // The same port, and the same service.
    let client = Client::builder().address(&*address).build().expect("it can be had");
    let request = Request::new("demo.Calculator/divide").format(Encoding::Json.format());
    assert_eq!(client.call(request.body("[9, 4]")).expect("it is there").body, "[2,1]");

    let page = get(&metrics, "/metrics");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    let accepted = page.lines().find_map(|line| {
        line.strip_prefix("millstream_accepted_total{reactor=\"0\"} ")?.parse::<u32>().ok()
    });
    assert!(accepted.is_some_and(|accepted| accepted > 10), "{page}");
    assert!(page.contains("\n# TYPE millstream_closed_total counter\n"), "{page}");
    assert!(get(&metrics, "/rpc/demo.Calculator/divide").starts_with("HTTP/1.1 404 "));

    drop(client);
    gateway.signal("TERM");
    assert!(gateway.ends_well());
}
