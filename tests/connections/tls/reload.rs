//! New files: by a signal, and by looking at them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::Duration;

use millstream::tls::TlsServer;
use rustix::process::{Signal, getpid, kill_process};

use super::authority::{Authority, Files, connect, exchange};
use super::server::start;
use crate::common::alone::alone;
use crate::common::folder::Folder;
use crate::common::log::Log;
use crate::common::{TestEngine, eventually};

/// Whether the server shows a certificate of this authority.
fn shows(engine: &TestEngine, authority: &Authority) -> bool {
    let mut client = connect(engine.connect(), authority.client(), "localhost");
    client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok()
}

/// Each file at once: anyone who looks meanwhile sees the old one or the new one.
fn put(files: &Files, (chain, key): &(String, String)) {
    for (path, text) in [(&files.chain, chain), (&files.key, key)] {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }
}

#[test]
fn a_hangup_takes_new_files_and_leaves_broken_ones() {
    alone(|| {
        let log = Log::of_the_process();
        let (authority, other) = (Authority::new(), Authority::new());
        let files = authority.files(&["localhost"]);
        let tls = TlsServer::from_pem_files(&files.chain, &files.key).unwrap();
        let (engine, _told) = start(&tls);
        tls.reload_on_hangup(&engine).unwrap();
        let hang_up = || kill_process(getpid(), Signal::HUP).unwrap();
        let mut before = connect(engine.connect(), authority.client(), "localhost");
        assert_eq!(exchange(&mut before, b"x"), b"x");

        let (chain, key) = other.sign(&["localhost"]);
        fs::write(&files.chain, chain).unwrap();
        hang_up();
        let wrong = format!("error={}: the private key is not that of", files.key.display());
        eventually("what is wrong is told", || log.has(&wrong));
        assert!(shows(&engine, &authority), "the old files stay in force");

        fs::write(&files.key, key).unwrap();
        hang_up();
        eventually("it is told", || log.has("the TLS files were read again, and are in force"));
        assert!(shows(&engine, &other));
        assert_eq!(exchange(&mut before, b"y"), b"y");
    });
}

#[test]
fn a_change_while_the_files_are_read_is_noticed() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new());
    let (files, slow) = (authority.files(&["localhost"]), authority.files(&["slow.test"]));
    // Reading it takes until somebody writes.
    let pipe = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let tls = TlsServer::builder().pem_files(&files.chain, &files.key).pem_files(&pipe, slow.key);
    let chain = fs::read(slow.chain).unwrap();
    let both = other.sign(&["localhost"]);
    let tls = thread::scope(|scope| {
        let reading = scope.spawn(|| tls.reload_when_changed(Duration::ZERO).build().unwrap());
        let mut opened = File::create(&pipe).unwrap(); // Now it reads there.
        put(&files, &both);
        opened.write_all(&chain).unwrap();
        drop(opened);
        reading.join().unwrap()
    });
    let (engine, _told) = start(&tls);
    assert!(shows(&engine, &authority), "these were there");
    thread::spawn(move || fs::write(pipe, chain)); // Once it reads it again, which it may not.
    eventually("the new files are in force", || shows(&engine, &other));
}

#[test]
fn files_that_could_not_be_used_are_tried_again() {
    alone(|| {
        let log = Log::of_the_process();
        let (authority, other) = (Authority::new(), Authority::new());
        let files = authority.files(&["localhost"]);
        let tls = TlsServer::builder().pem_files(&files.chain, &files.key);
        let tls = tls.reload_when_changed(Duration::ZERO).build().unwrap();
        let (engine, _told) = start(&tls);
        let (chain, key) = other.sign(&["localhost"]);
        put(&files, &(chain.replacen("CERTIFICATE", "CERTIFICATX", 1), key));
        eventually("it is told", || log.has("ERROR"));
        // As if nothing had changed.
        let when = fs::metadata(&files.chain).unwrap().modified().unwrap();
        let mut file = File::options().write(true).open(&files.chain).unwrap();
        file.write_all(chain.as_bytes()).unwrap();
        file.set_modified(when).unwrap();
        eventually("the new files are in force", || shows(&engine, &other));
        // Once for each of the two files that changed, at most.
        let told = log.text().matches("those before stay in force").count();
        assert!((1..=2).contains(&told), "told {told} times");
        assert!(log.has("the TLS files were read again, and are in force"));
    });
}
