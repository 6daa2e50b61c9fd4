//! Files: which are served, what is said of them, and how they are sent.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use millstream::Engine;
use millstream::http::{
    Answered, Exchange, Failure, Files, Handler, HttpServer, Middleware, Next, OwnedResponse,
    Responder, Router, Routes, StatusCode,
};

use super::{World, response};
use crate::common::folder::Folder;
use crate::common::{TestEngine, assert_same, pattern, read_exactly};

const SOON: Duration = Duration::from_secs(1);

/// A folder with `site` in it, which is served.
fn site() -> Folder {
    let folder = Folder::new();
    fs::create_dir_all(folder.join("site/docs/.git")).expect("it is new");
    for (name, content) in [
        ("secret", "outside"),
        ("site/index.html", "home"),
        ("site/page.html", "0123456789"),
        ("site/a b.txt", "spaced"),
        ("site/%41", "signs"),
        ("site/empty.css", ""),
        ("site/unknown.zzz", "bytes"),
        ("site/.hidden", "dot"),
        ("site/docs/index.html", "docs"),
        ("site/docs/.git/config", "git"),
    ] {
        fs::write(folder.join(name), content).expect("it is new");
        age(&folder, name, Duration::from_secs(100));
    }
    folder
}

/// Makes a file this old.
fn age(folder: &Folder, name: &str, age: Duration) {
    let file = File::options().write(true).open(folder.join(name)).expect("it is there");
    let time = SystemTime::now().checked_sub(age).expect("there was such a time");
    file.set_modified(time).expect("it is ours");
}

fn files(folder: &Folder) -> Files {
    Files::open(folder.join("site")).expect("it is a folder")
}

fn routes(prefix: &str, files: impl Into<Arc<Files>>) -> Routes {
    Router::new().files(prefix, files).build().expect("they are routes")
}

fn world(folder: &Folder) -> World<Routes> {
    World::new(0, HttpServer::new().serve(routes("", files(folder))))
}

/// The status, and the rest of the answer.
fn ask(world: &mut World<impl Handler>, method: &str, target: &str, fields: &str) -> (u16, String) {
    let version = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
    let answer = world.ask(format!("{version}{fields}\r\n"));
    let status = answer["HTTP/1.1 ".len()..][..3].parse().expect("it has a status");
    (status, answer["HTTP/1.1 200".len()..].to_owned())
}

/// The value of a field in an answer.
fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name}: ");
    answer.split("\r\n").find_map(|line| line.strip_prefix(&start))
}

#[test]
fn what_is_below_the_folder_is_served_and_nothing_else() {
    let folder = site();
    symlink("page.html", folder.join("site/within")).expect("it is new");
    symlink("../secret", folder.join("site/out")).expect("it is new");
    symlink(folder.join("secret"), folder.join("site/absolute")).expect("it is new");
    symlink("..", folder.join("site/parent")).expect("it is new");
    let _socket = UnixListener::bind(folder.join("site/socket")).expect("it is new");
    let fifo = Command::new("mkfifo").arg(folder.join("site/fifo")).status();
    assert!(fifo.is_ok_and(|status| status.success()), "mkfifo is everywhere");
    let mut world = world(&folder);
    for (target, content) in [
        ("/", "home"),
        ("/index.html", "home"),
        ("/page.html?version=2", "0123456789"),
        ("http://a/page.html", "0123456789"),
        ("/a%20b.txt", "spaced"),
        ("/%2541", "signs"),
        ("/empty.css", ""),
        ("/docs/", "docs"),
    ] {
        let (status, answer) = ask(&mut world, "GET", target, "");
        assert_eq!(status, 200, "{target}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{content}")), "{target}: {answer}");
    }
    for target in [
        "/none",
        "/page.html/",
        "/page.html/none",
        "/docs/none",
        "//page.html",
        "/docs//index.html",
        "/docs/./index.html",
        "/docs/../index.html",
        "/../secret",
        "/docs/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/docs%2findex.html",
        "/docs%2Findex.html",
        "/..%5csecret",
        "/page.html%00",
        "/%00",
        "/%2fetc%2fpasswd",
        "//etc/passwd",
        "/p%61ge.html",
        "/.hidden",
        "/docs/.git/config",
        "/docs/.git/",
        "/out",
        "/absolute",
        "/parent/secret",
        "/fifo",
        "/socket",
    ] {
        let (status, answer) = ask(&mut world, "GET", target, "");
        assert_eq!(status, 404, "{target}: {answer}");
    }
    let long = format!("/{}", "a".repeat(300));
    assert_eq!(ask(&mut world, "GET", &long, "").0, 404);
    for bad in ["/%", "/%4", "/%ff"] {
        assert_eq!(ask(&mut world, "GET", bad, "").0, 400, "{bad}");
    }
    if cfg!(target_os = "linux") {
        assert_eq!(ask(&mut world, "GET", "/within", "").0, 200);
    }
}

#[test]
fn what_is_asked_for_is_served_as_well() {
    let folder = site();
    symlink("../secret", folder.join("site/out")).expect("it is new");
    let files = files(&folder).dot_files().follow_links().index("page.html");
    let files = files.field("Cache-Control", "no-cache").expect("it is valid");
    let files = Arc::new(files);
    let one = Arc::clone(&files);
    let router = Router::new().files("/static", files);
    let router = router.get("/icon", move |exchange| one.send(exchange, "docs/index.html"));
    let routes = router.build().expect("they are routes");
    let mut world = World::new(0, HttpServer::new().serve(routes));
    for (target, content) in [
        ("/static/", "0123456789"),
        ("/static/.hidden", "dot"),
        ("/static/docs/.git/config", "git"),
        ("/static/out", "outside"),
        ("/icon", "docs"),
    ] {
        let (status, answer) = ask(&mut world, "GET", target, "");
        assert_eq!((status, field(&answer, "Cache-Control")), (200, Some("no-cache")), "{target}");
        assert!(answer.ends_with(&format!("\r\n\r\n{content}")), "{target}: {answer}");
    }
    for target in ["/static/docs/", "/static/../secret", "/static/..", "/page.html"] {
        let (status, answer) = ask(&mut world, "GET", target, "");
        assert_eq!((status, field(&answer, "Cache-Control")), (404, None), "{target}");
    }
}

#[test]
fn a_folder_is_redirected_to_its_slash() {
    let folder = site();
    for (prefix, target, location) in [
        ("", "/docs", "/docs/"),
        ("", "/docs?a=b", "/docs/?a=b"),
        ("", "http://evil/docs", "/docs/"),
        ("/static", "/static", "/static/"),
        ("/static", "/static/docs", "/static/docs/"),
    ] {
        let mut world = World::new(0, HttpServer::new().serve(routes(prefix, files(&folder))));
        let (status, answer) = ask(&mut world, "GET", target, "");
        assert_eq!((status, field(&answer, "Location")), (301, Some(location)), "{target}");
    }
    // It would lead to another host.
    assert_eq!(ask(&mut world(&folder), "GET", "//docs", "").0, 404);
}

#[test]
fn other_methods_are_told_which_there_are() {
    let folder = site();
    let mut world = world(&folder);
    for (method, status) in [("POST", 405), ("DELETE", 405), ("OPTIONS", 204)] {
        let (got, answer) = ask(&mut world, method, "/page.html", "");
        assert_eq!((got, field(&answer, "Allow")), (status, Some("GET, HEAD, OPTIONS")));
    }
    let (files, mut alone) = (files(&folder), None);
    let handler = move |exchange: Exchange<'_>| files.send(exchange, "page.html");
    let world = alone.insert(World::new(0, HttpServer::new().serve(handler)));
    let (status, answer) = ask(world, "PUT", "/", "");
    assert_eq!((status, field(&answer, "Allow")), (405, Some("GET, HEAD")));
}

#[test]
fn a_head_is_that_of_the_file() {
    let folder = site();
    let mut world = world(&folder);
    for (target, kind, length) in [
        ("/", "text/html; charset=utf-8", "4"),
        ("/empty.css", "text/css; charset=utf-8", "0"),
        ("/unknown.zzz", "application/octet-stream", "5"),
        ("/%2541", "application/octet-stream", "5"),
    ] {
        let (_, get) = ask(&mut world, "GET", target, "");
        let (status, head) = ask(&mut world, "HEAD", target, "");
        assert_eq!((status, field(&head, "Content-Type")), (200, Some(kind)), "{target}");
        assert_eq!(field(&head, "Content-Length"), Some(length), "{target}");
        assert_eq!(get.split_once("\r\n\r\n").expect("it has an end").0.len() + 4, head.len());
    }
    // Range is for GET alone.
    let (status, head) = ask(&mut world, "HEAD", "/page.html", "Range: bytes=0-1\r\n");
    assert_eq!((status, field(&head, "Content-Length")), (200, Some("10")));
}

/// RFC 9110, section 13.2.2, row by row.
#[test]
fn conditions_are_evaluated_in_their_order() {
    let folder = site();
    let mut world = world(&folder);
    let (_, answer) = ask(&mut world, "GET", "/page.html", "");
    let (etag, date) = ("ETag", "Last-Modified");
    let [etag, date] = [etag, date].map(|name| field(&answer, name).expect("it is said"));
    let weak = format!("W/{etag}");
    let (early, late) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Tue, 31 Dec 2999 23:59:59 GMT");
    let list = format!("\"a,b\", {weak} , \"c\"");
    for (fields, status) in [
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", etag)], 200),
        (vec![("If-Match", "\"a\""), ("If-Match", etag)], 200),
        (vec![("If-Match", &*weak)], 412),
        (vec![("If-Match", "\"a\"")], 412),
        (vec![("If-Match", "unquoted")], 412),
        (vec![("If-Match", etag), ("If-Unmodified-Since", early)], 200),
        (vec![("If-Match", "\"a\""), ("If-Unmodified-Since", late)], 412),
        (vec![("If-Unmodified-Since", date)], 200),
        (vec![("If-Unmodified-Since", late)], 200),
        (vec![("If-Unmodified-Since", early)], 412),
        (vec![("If-Unmodified-Since", "yesterday")], 200),
        (vec![("If-None-Match", "*")], 304),
        (vec![("If-None-Match", etag)], 304),
        (vec![("If-None-Match", &weak)], 304),
        (vec![("If-None-Match", &list)], 304),
        (vec![("If-None-Match", "\"a\""), ("If-None-Match", etag)], 304),
        (vec![("If-None-Match", "\"a\"")], 200),
        (vec![("If-None-Match", "a, W/")], 200),
        (vec![("If-None-Match", "\"a\""), ("If-Modified-Since", date)], 200),
        (vec![("If-None-Match", etag), ("If-Modified-Since", early)], 304),
        (vec![("If-Modified-Since", date)], 304),
        (vec![("If-Modified-Since", late)], 304),
        (vec![("If-Modified-Since", early)], 200),
        (vec![("If-Modified-Since", "\u{e9}")], 200),
        (vec![("If-Match", "\"a\""), ("If-None-Match", etag)], 412),
        (vec![("If-Unmodified-Since", early), ("If-Modified-Since", date)], 412),
        (vec![("If-Match", etag), ("If-None-Match", etag), ("Range", "bytes=0-1")], 304),
        (vec![("If-None-Match", "\"a\""), ("Range", "bytes=0-1")], 206),
        (vec![("If-None-Match", etag), ("Range", "bytes=99-")], 304),
        (vec![("If-Range", etag), ("Range", "bytes=0-1")], 206),
        (vec![("If-Range", date), ("Range", "bytes=0-1")], 206),
        (vec![("If-Range", &weak), ("Range", "bytes=0-1")], 200),
        (vec![("If-Range", "\"a\""), ("Range", "bytes=0-1")], 200),
        (vec![("If-Range", late), ("Range", "bytes=0-1")], 200),
        (vec![("If-Range", "what"), ("Range", "bytes=99-")], 200),
        (vec![("If-Range", "\"a\""), ("Range", "bytes=99-")], 200),
        (vec![("If-Match", "\"a\""), ("If-Range", etag), ("Range", "bytes=0-1")], 412),
    ] {
        let lines: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (got, answer) = ask(&mut world, "GET", "/page.html", &lines);
        assert_eq!(got, status, "{lines}{answer}");
        if got == 304 {
            assert_eq!(field(&answer, "ETag"), Some(etag));
            assert!(answer.ends_with("\r\n\r\n") && !answer.contains("Content-"), "{answer}");
        }
    }
    assert_eq!(ask(&mut world, "GET", "/none", "If-Match: *\r\n").0, 404);
}

#[test]
fn what_was_just_changed_is_known_weakly() {
    let folder = site();
    age(&folder, "site/page.html", Duration::ZERO);
    let mut world = world(&folder);
    let (_, answer) = ask(&mut world, "GET", "/page.html", "");
    let etag = field(&answer, "ETag").expect("it is said");
    assert!(etag.starts_with("W/\""), "{etag}");
    let ask = |world: &mut _, fields: &str| ask(world, "GET", "/page.html", fields).0;
    assert_eq!(ask(&mut world, &format!("If-None-Match: {etag}\r\n")), 304);
    assert_eq!(ask(&mut world, &format!("If-Range: {etag}\r\nRange: bytes=0-1\r\n")), 200);
    // The same state is known strongly later.
    let strong = etag.trim_start_matches("W/").to_owned();
    assert_eq!(ask(&mut world, &format!("If-None-Match: {strong}\r\n")), 304);
    fs::write(folder.join("site/page.html"), "0123456780").expect("it is ours");
    assert_eq!(ask(&mut world, &format!("If-None-Match: {etag}\r\n")), 200);
}

#[test]
fn times_before_and_beyond_all_dates_are_no_harm() {
    let folder = site();
    let mut world = world(&folder);
    let file = File::options().write(true).open(folder.join("site/page.html")).expect("it is");
    let day = Duration::from_secs(86_400);
    // A file system may know no time after some other one, and takes that instead.
    let times = [
        (SystemTime::UNIX_EPOCH.checked_sub(day), false),
        (SystemTime::now().checked_add(day), true),
        (SystemTime::UNIX_EPOCH.checked_add(day * 366 * 10_000), true),
    ];
    for (time, may_be_dated) in times {
        if file.set_modified(time.expect("it is one")).is_err() {
            continue;
        }
        let (status, answer) = ask(&mut world, "GET", "/page.html", "If-Modified-Since: a\r\n");
        assert_eq!(status, 200);
        assert!(field(&answer, "ETag").expect("it is said").starts_with("W/"), "{answer}");
        if let Some(modified) = field(&answer, "Last-Modified") {
            let modified = httpdate::parse_http_date(modified).expect("it is a date");
            assert!(may_be_dated && modified <= SystemTime::now(), "{answer}");
        }
    }
}

#[test]
fn a_range_is_a_part() {
    let folder = site();
    let mut world = world(&folder);
    for (range, status, said, content) in [
        ("bytes=0-0", 206, Some("bytes 0-0/10"), "0"),
        ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
        ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=7-99", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-2", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=-99", 206, Some("bytes 0-9/10"), "0123456789"),
        ("bytes=10-", 416, Some("bytes */10"), "416 Range Not Satisfiable\n"),
        ("bytes=-0", 416, Some("bytes */10"), "416 Range Not Satisfiable\n"),
        ("bytes=4-2", 200, None, "0123456789"),
        ("bytes=0-1,3-4", 200, None, "0123456789"),
        ("lines=0-1", 200, None, "0123456789"),
        ("nonsense", 200, None, "0123456789"),
    ] {
        let (got, answer) = ask(&mut world, "GET", "/page.html", &format!("Range: {range}\r\n"));
        assert_eq!((got, field(&answer, "Content-Range")), (status, said), "{range}");
        assert_eq!(field(&answer, "Content-Length"), Some(&*content.len().to_string()));
        assert!(answer.ends_with(&format!("\r\n\r\n{content}")), "{range}: {answer}");
    }
    let (status, _) = ask(&mut world, "GET", "/empty.css", "Range: bytes=0-\r\n");
    assert_eq!(status, 416);
}

#[test]
fn an_answer_that_is_no_file_has_not_its_fields() {
    let folder = site();
    let files = files(&folder).field("Cache-Control", "max-age=3600").expect("it can be sent");
    let mut world = World::new(0, HttpServer::new().serve(routes("", files)));
    for (range, status) in [("bytes=0-", 206), ("bytes=10-", 416)] {
        let (got, answer) = ask(&mut world, "GET", "/page.html", &format!("Range: {range}\r\n"));
        let cached = field(&answer, "Cache-Control").is_some();
        assert_eq!((got, cached), (status, status == 206), "{answer}");
    }
}

/// Lets nobody in.
struct Shut;

impl Middleware for Shut {
    fn handle(&self, _: Exchange<'_>, _: impl Next) -> Result<Answered, Failure> {
        Err(StatusCode::FORBIDDEN.into())
    }
}

#[test]
fn a_part_of_a_folder_can_be_guarded() {
    let folder = site();
    let docs = Files::open(folder.join("site/docs")).expect("it is a folder");
    let router = Router::new()
        .files("/static", files(&folder))
        .group("/static/docs", |docs_only| docs_only.layer(Shut).files("", docs));
    let routes = router.build().expect("they are routes");
    let mut world = World::new(0, HttpServer::new().serve(routes));
    for (target, status) in [
        ("/static/page.html", 200),
        ("/static/docs", 301), // Which says no more than that it is there.
        ("/static/docs/", 403),
        ("/static/docs/index.html", 403),
        ("/static/docs/none", 403),
        ("/static//docs/", 404),
        ("/static/./docs/", 404),
        ("/static/%64ocs/", 404),
        ("/static/docs%2f", 404),
    ] {
        assert_eq!(ask(&mut world, "GET", target, "").0, status, "{target}");
    }
}

/// A large file in the folder.
fn large(folder: &Folder, length: usize) -> Vec<u8> {
    let content = pattern(length, 7);
    fs::write(folder.join("site/large"), &content).expect("it is new");
    content
}

#[test]
fn large_files_are_sent_whole_and_the_connection_goes_on() {
    let folder = site();
    let content = large(&folder, 20_000_001);
    let routes = routes("", files(&folder));
    let server = HttpServer::new();
    let engine =
        TestEngine::start(Engine::builder().reactors(1), move |_| server.serve(routes.clone()));
    let mut client = engine.connect();
    let get = |range: &str| format!("GET /large HTTP/1.1\r\nHost: a\r\n{range}\r\n");
    let requests = get("") + &get("Range: bytes=70000-19999999\r\n") + &get("");
    client.write_all(requests.as_bytes()).expect("it is sent");
    for expected in [&content[..], &content[70_000..20_000_000], &content[..]] {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read_exactly(&mut client, 1));
        }
        assert_same(&read_exactly(&mut client, expected.len()), expected);
    }
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_not_taken_for_whole() {
    let folder = site();
    for (length, is_whole) in [(900_000_u64, false), (0, false), (1_100_000, true)] {
        let content = large(&folder, 1_000_000);
        let mut world = world(&folder);
        let mut peer = world.connect();
        let request = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
        world.0.send_all(&mut peer, request).expect("it is received");
        world.0.run(SOON);
        let file = File::options().write(true).open(folder.join("site/large")).expect("it is");
        file.set_len(length).expect("it is ours");
        let mut received = Vec::new();
        for _ in 0..1_000 {
            received.extend(peer.receive());
            world.0.run(Duration::from_millis(10));
        }
        let head = received.windows(4).position(|end| end == b"\r\n\r\n").expect("it ends") + 4;
        let body = &received[head..];
        assert!(received.windows(23).any(|line| line == b"Content-Length: 1000000"));
        assert_eq!((peer.ended(), body.len() == content.len()), (!is_whole, is_whole), "{length}");
        assert_same(body, &content[..body.len()]);
    }
}

/// A client that asks for many behind a slow answer has one open.
#[cfg(target_os = "linux")]
#[test]
fn a_connection_has_one_file_open_at_a_time() {
    let folder = site();
    let content = large(&folder, 1_000_000);
    let (sender, responders) = channel();
    let sender = Mutex::new(sender);
    let router = Router::new().files("", files(&folder)).get("/later", move |exchange| {
        let (responder, answered) = exchange.later();
        sender.lock().expect("no panic").send(responder).expect("the test waits");
        Ok(answered)
    });
    let routes = router.build().expect("they are routes");
    let mut world = World::new(0, HttpServer::new().serve(routes));
    let mut peer = world.connect();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let requests = get("/later") + &get("/large").repeat(20);
    world.0.send_all(&mut peer, requests.as_bytes()).expect("it is received");
    world.0.run(SOON);
    let path = folder.join("site/large");
    let open = fs::read_dir("/proc/self/fd").expect("it is there");
    let open = open.filter(|fd| {
        fd.as_ref().is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == path))
    });
    assert_eq!(open.count(), 1);
    let responder: Responder = responders.try_recv().expect("it is handled");
    responder.send(OwnedResponse::new(StatusCode::OK));
    let mut received = 0;
    for _ in 0..20_000 {
        received += peer.receive().len();
        world.0.run(Duration::from_millis(10));
    }
    assert!(received > 20 * content.len(), "all are served: {received}");
}

#[test]
fn what_may_not_be_read_is_not_served() {
    let folder = site();
    let mut world = world(&folder);
    let expected = response(
        "404 Not Found",
        "Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n",
        "404 Not Found\n",
    );
    fs::remove_file(folder.join("site/page.html")).expect("it is ours");
    let request = "GET /page.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(world.ask(request), expected);
    assert!(Files::open(folder.join("site/none")).is_err());
    assert!(Files::open(folder.join("secret")).is_err(), "it is a file");
}
