//! Everything for a browser, in one file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, ChartError};
use super::palette::style_sheet;
use super::record::{Record, SATURATED_NOTE, ScenarioResults, Subject};
use super::table::{headings, row};
use crate::stand::Role;

const STYLE: &str = "
body{max-width:1120px;margin:2rem auto;padding:0 1rem;background:var(--background);
 color:var(--text);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
h1,h2,h3{line-height:1.25}h2{margin-top:2.5rem;border-bottom:1px solid var(--grid)}
h3{margin:1.5rem 0 .25rem;font-size:1rem}a{color:var(--millstream)}
.note,.facts,h3 code{color:var(--muted);font-weight:normal}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem}
figure{margin:.5rem 0;overflow-x:auto}svg{max-width:100%;height:auto;display:block}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px}
th,td{padding:.15rem .6rem;text-align:right;white-space:nowrap}
th{color:var(--muted);font-weight:600}.heading{padding-top:1.2rem;color:var(--text)}
th:first-child,td:first-child,.left{text-align:left}
.millstream{background:var(--band);font-weight:600}.failed{color:var(--failed)}
dt{color:var(--muted)}dd{margin:0 0 .5rem}code{overflow-wrap:anywhere}
";

/// The record as a page, with all charts and figures.
///
/// # Errors
///
/// If a chart cannot be drawn.
pub fn page(record: &Record) -> Result<String, ChartError> {
    let overview = chart::overview(record)?;
    let charts: Result<Vec<Markup>, ChartError> = groups(record)
        .iter()
        .map(|(group, members)| group_charts(record, group, members))
        .collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title(record)) ", " (record.date) }
                style { (PreEscaped(style_sheet())) (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title(record)) }
                (introduction(record))
                figure { (PreEscaped(overview)) }
                nav {
                    @for (group, _) in groups(record) { a href={ "#" (anchor(&group)) } { (group) } }
                    a href="#figures" { "All figures" }
                    a href="#how" { "How it was measured" }
                }
                @for chart in charts? { (chart) }
                (all_figures(record))
                (how(record))
            }
        }
    };
    Ok(page.into_string())
}

fn introduction(record: &Record) -> Markup {
    let machine = &record.machine;
    html! {
        p class="facts" {
            (record.date) " · " (machine.processor) ", " (machine.cores) " cores"
            @if machine.virtual_machine { ", virtual machine" }
            " · " (machine.kernel) " · profile " (record.profile)
        }
        p {
            (what(record)) ", with " (record.setup.threads)
            @if record.setup.threads == 1 { " event loop" } @else { " event loops" }
            " on cores of its own; the load comes from other cores. The first chart sums it up: a \
             bar is the geometric mean of a server's CPU time per message over the scenarios, relative \
             to an echo loop written by hand on epoll, each dot one of them. Less is better. Below, the \
             servers are sorted by their CPU time in each scenario. The ratio beside it is taken within \
             each round, and is the median of the rounds, so it need not rise in the same order."
        }
        p class="note" {
            "“" (SATURATED_NOTE) "”: the generator had no time left, so messages per second and latencies \
             are its figures as much as the server's. The server's CPU time stays valid."
        }
    }
}

fn title(record: &Record) -> &'static str {
    match record.subject {
        Subject::Echo => "Echo servers compared",
        Subject::Tls => "Echo servers with TLS compared",
        Subject::Rpc => "RPC servers compared",
    }
}

/// What the servers do.
fn what(record: &Record) -> &'static str {
    match record.subject {
        Subject::Echo => "Every server echoes the same messages over loopback",
        Subject::Tls => {
            "Every server echoes the same messages over loopback and TLS 1.3: AES-128-GCM, X25519, a \
             certificate for a P-256 key, and ring's cryptography in all that are in Rust. The loops on epoll \
             and tokio-rustls have rustls, too. haproxy and nginx end TLS before the plain loop on epoll, on \
             the same cores, and the CPU time is that of both processes. Where connections come and go each \
             shakes hands, in full unless it says otherwise"
        }
        Subject::Rpc => {
            "Every server answers calls over loopback with the messages that are in them, each in its own \
             protocol, and calls that are in flight share their connection; the loop on epoll echoes the \
             bare bytes of the same messages. What puts a load on tonic and tarpc is a client on the same \
             library. At a rate of its own means at a part of what the server took in a closed loop"
        }
    }
}

/// The scenarios under their headings.
fn groups(record: &Record) -> Vec<(String, Vec<&ScenarioResults>)> {
    let mut groups: Vec<(String, Vec<&ScenarioResults>)> = Vec::new();
    for results in &record.scenarios {
        let name = results.scenario.group();
        match groups.iter_mut().find(|(group, _)| *group == name) {
            Some((_, members)) => members.push(results),
            None => groups.push((name, vec![results])),
        }
    }
    groups
}

fn anchor(group: &str) -> String {
    group.to_lowercase().replace(' ', "-")
}

fn group_charts(
    record: &Record,
    group: &str,
    members: &[&ScenarioResults],
) -> Result<Markup, ChartError> {
    let charts = members.iter().map(|results| chart::scenario(record, results));
    let charts = charts.collect::<Result<Vec<String>, ChartError>>()?;
    Ok(html! {
        h2 id=(anchor(group)) { (group) }
        @for (results, chart) in members.iter().zip(charts) {
            h3 { (results.scenario) " " code { (results.scenario.name) } }
            @if let Some(remark) = results.remark() { div class="note" { (remark) } }
            @for (names, note) in results.notes(&record.contestants) {
                div class="note" { (note) ": " (names) }
            }
            figure { (PreEscaped(chart)) }
        }
    })
}

fn all_figures(record: &Record) -> Markup {
    html! {
        h2 id="figures" { "All figures" }
        p class="note" {
            "Medians over the rounds; the ratio is taken to the baseline's CPU time in the same round. \
             So are those to other servers. \"switches\" are context switches of the server, \"load\" is the CPU time of the load \
             generator, \"B/connection\" the memory by which the server grew, which tells \
             little where there are few connections."
        }
        div class="wide" {
            table {
                @for results in &record.scenarios { (scenario_figures(record, results)) }
            }
        }
    }
}

fn scenario_figures(record: &Record, results: &ScenarioResults) -> Markup {
    let headings = headings(&record.contestants, results);
    html! {
        tbody {
            tr { th class="heading" colspan=(headings.len() + 1) { (results.scenario) } }
            @if let Some(remark) = results.remark() {
                tr { td class="note" colspan=(headings.len() + 1) { (remark) } }
            }
            tr { th { "server" } @for heading in &headings { th { (heading) } } }
            @for index in results.order() {
                @let (entry, outcome) = (&record.contestants[index], &results.results[index]);
                tr class=[(entry.role == Role::Millstream).then_some("millstream")] {
                    td { (entry.name) }
                    @match row(&record.contestants, results, index) {
                        Some(figures) => { @for figure in figures { td { (figure) } } }
                        None => {
                            td class="left failed" colspan=(headings.len()) {
                                "failed: " (outcome.failure.as_deref().unwrap_or_default())
                            }
                        }
                    }
                }
            }
        }
    }
}

fn how(record: &Record) -> Markup {
    let (machine, setup) = (&record.machine, &record.setup);
    html! {
        h2 id="how" { "How it was measured" }
        dl {
            dt { "Command" }
            dd { code { (record.command) } }
            dt { "Rounds" }
            dd {
                (setup.rounds) " of " (setup.seconds) " s after " (setup.warm_up)
                " s of warm-up, each in a new server process, all servers in turn in each round"
            }
            dt { "Cores" }
            dd { "server on " (setup.server_cores) ", load on " (setup.load_cores) }
            @if let Some(capacity) = record.capacity {
                dt { "Capacity" }
                dd { (format!("{capacity:.0}")) " messages/s: the baseline's, from which rates are taken" }
            }
            dt { "Machine" }
            dd {
                (machine.processor) ", " (machine.cores) " cores, " (machine.memory) " GiB"
                @if machine.virtual_machine { ", virtual machine" }
            }
            dt { "System" }
            dd { (machine.kernel) ", TCP congestion control " (machine.congestion_control) }
            dt { "Compiler" }
            dd { (machine.rustc) }
            dt { "Servers" }
            @for entry in &record.contestants { dd { (entry.name) ": " (entry.version) } }
            @if !record.unavailable.is_empty() {
                dt { "Not measured" }
                @for one in &record.unavailable { dd { (one.name) ": " (one.reason) } }
            }
        }
    }
}
