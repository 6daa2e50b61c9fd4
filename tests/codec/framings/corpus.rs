//! The fuzzer's inputs, through the same functions.

use crate::check::{delimited, fixed_length, header_body, length_field, lines, resp};
use crate::common::corpus::replay;

#[test]
fn of_lines() {
    replay("lines", |data| lines::Case::read(data).check());
}

#[test]
fn of_delimited() {
    replay("delimited", |data| delimited::Case::read(data).check());
}

#[test]
fn of_fixed_length() {
    replay("fixed_length", |data| fixed_length::Case::read(data).check());
}

#[test]
fn of_length_field() {
    replay("length_field", |data| length_field::Case::read(data).check());
}

#[test]
fn of_header_body() {
    replay("header_body", |data| header_body::Case::read(data).check());
}

#[test]
fn of_resp_commands() {
    replay("resp_commands", |data| resp::commands::Case::read(data).check());
}

#[test]
fn of_resp_replies() {
    replay("resp_replies", |data| resp::replies::Case::read(data).check());
}
