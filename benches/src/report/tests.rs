use roxmltree::{Document, Node};

use super::*;
use crate::stand::{FULL, Machine, Role, Scenario};

const NAMES: [(&str, Role); 4] = [
    ("epoll", Role::Baseline),
    ("millstream", Role::Millstream),
    ("a<b> & \"c\"", Role::Peer),
    ("broken", Role::Peer),
];
const FAILURE: &str = "the server ended with <signal: 11>";

/// All scenarios; the last contestant fails in every one, and the third takes twice the time.
fn record() -> Record {
    let scenarios = FULL.iter().enumerate().map(|(index, name)| {
        let scenario: Scenario = name.parse().unwrap();
        let cpu = 200.0 + 100.0 * index as f64;
        let rounds = |factor: f64| {
            let mut rounds = Metrics::default();
            for round in [1.0, 1.5, 0.5] {
                rounds.push(metrics(cpu * factor * round));
            }
            (rounds, None)
        };
        let failed = (Metrics::default(), Some(FAILURE.to_owned()));
        let outcomes = vec![rounds(1.0), rounds(0.9), rounds(2.0), failed];
        ScenarioResults::new(scenario, &[100_000.0; 4], outcomes, 0)
    });
    Record {
        date: "2026-01-02".into(),
        subject: Subject::Echo,
        profile: "full".into(),
        command: "cargo bench --bench echo".into(),
        machine: Machine { processor: "Quick <3> GHz".into(), cores: 2, ..Machine::default() },
        setup: Setup {
            rounds: 3,
            seconds: 1.0,
            warm_up: 0.25,
            threads: 1,
            server_cores: "0".into(),
            load_cores: "1".into(),
        },
        capacity: Some(100_000.0),
        contestants: NAMES
            .map(|(name, role)| {
                let version = format!("{name} 1.0");
                Entry { name: name.into(), role, version, reference: false }
            })
            .into(),
        unavailable: vec![Unavailable { name: "absent".into(), reason: "no library".into() }],
        scenarios: scenarios.collect(),
    }
}

fn metrics(cpu: f64) -> Metrics<f64> {
    Metrics {
        cpu,
        user_share: 0.25,
        throughput: 1e9 / cpu / 2.0,
        p50: cpu / 10.0,
        p99: cpu / 3.0,
        p999: cpu,
        context_switches: 0.5,
        memory_per_connection: 700.0,
        generator_cpu: cpu,
        generator_busy: 0.5,
    }
}

fn texts(node: Node<'_, '_>) -> Vec<String> {
    node.descendants()
        .filter(Node::is_text)
        .filter_map(|node| node.text())
        .map(|text| text.trim().to_owned())
        .collect()
}

#[test]
fn a_record_survives_being_kept() {
    let record = record();
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
}

#[test]
fn results_have_medians_and_ratios_and_an_order() {
    let record = record();
    let results = &record.scenarios[0];
    let ratios = [0, 1, 2, 3].map(|index| results.results[index].ratio);
    assert_eq!(ratios, [Some(1.0), Some(0.9), Some(2.0), None]);
    assert_eq!(results.results[2].medians.as_ref().unwrap().cpu, 400.0);
    assert_eq!(results.order(), [1, 0, 2, 3]);
    let ranking: Vec<usize> = record.ranking().iter().map(|(index, _)| *index).collect();
    assert_eq!(ranking, [1, 0, 2]);
}

#[test]
fn where_not_all_is_counted_nothing_is_told_per_message() {
    let record = record();
    let results = record.scenarios.last().unwrap();
    assert!(!results.scenario.counts_all());
    assert!(results.results.iter().all(|outcome| outcome.ratio.is_none()));
    assert_eq!(record.comparable(), record.scenarios.len() - 1);
    let medians = results.results[0].medians.as_ref().unwrap();
    let empty = table::figures(&results.scenario, medians, None).map(|text| text.is_empty());
    assert_eq!(empty, [true, true, false, false, false, false, false, true, false, true]);
    let chart = chart::scenario(&record, results).unwrap();
    assert!(!chart.contains("CPU time") && chart.contains("latency"), "{chart}");
    // The reason is below the table, and on the page above the chart and the figures.
    let remark = results.remark().unwrap();
    assert!(table(&record.contestants, results).contains(remark));
    assert_eq!(page(&record).unwrap().matches(remark).count(), 2);
    assert_eq!(record.scenarios[0].remark(), None);
}

#[test]
fn only_millstream_the_baseline_and_who_was_asked_for_must_not_fail() {
    let mut record = record();
    let requested = [NAMES[2].0, "broken", "absent"].map(str::to_owned);
    assert!(record.failures(&[]).is_empty());
    assert_eq!(record.failures(&requested), ["broken", "absent"]);
    record.scenarios[5].results[1].failure = Some(FAILURE.into());
    assert_eq!(record.failures(&[]), ["millstream"]);
}

#[test]
fn notes_name_whom_they_are_about() {
    let mut results = record().scenarios.remove(0);
    for outcome in &mut results.results[..2] {
        outcome.medians.as_mut().unwrap().generator_busy = 0.99;
    }
    let texts = |notes: &[(&str, &str)]| -> Vec<(String, String)> {
        notes.iter().map(|(name, note)| ((*name).to_owned(), (*note).to_owned())).collect()
    };
    let broken = ("broken", "failed, the server ended with <signal: 11>");
    let saturated = ("epoll, millstream", "load generator saturated");
    assert_eq!(results.notes(&record().contestants), texts(&[saturated, broken]));
    // At a rate the generator is always busy.
    results.rate = Some(3e6);
    let late = [
        ("epoll", "only 83 % of the rate"),
        ("millstream", "only 93 % of the rate"),
        (NAMES[2].0, "only 42 % of the rate"),
        broken,
    ];
    assert_eq!(results.notes(&record().contestants), texts(&late));
}

#[test]
fn the_table_has_every_contestant_and_says_who_failed() {
    let record = record();
    let text = table(&record.contestants, &record.scenarios[0]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1x64x1: 1 connection, 64 B messages, 1 in flight on each");
    let starts = ["server", "millstream", "epoll", NAMES[2].0, "broken"];
    for (line, start) in lines[1..].iter().zip(starts) {
        assert!(line.trim().starts_with(start), "{line}");
    }
    assert!(lines[2].contains(" 180 ") && lines[2].contains(" 0.900 "), "{text}");
    assert!(lines[5].trim().ends_with("failed"), "{text}");
    assert!(text.contains(FAILURE), "{text}");
}

/// The third contestant is one that others are compared with; the load is at its own rate.
fn rpc_record() -> Record {
    let mut record = record();
    record.subject = Subject::Rpc;
    record.contestants[2].reference = true;
    let outcomes = record.scenarios.remove(0).results;
    let outcomes = outcomes.into_iter().map(|outcome| (outcome.rounds, outcome.failure)).collect();
    let capacities = [1e6, 2e6, 3e6, 4e6];
    record.scenarios =
        vec![ScenarioResults::new("own-80".parse().unwrap(), &capacities, outcomes, 0)];
    record
}

#[test]
fn others_than_the_baseline_can_be_compared_with() {
    let record = rpc_record();
    let results = &record.scenarios[0];
    let ratios = [0, 1, 2, 3].map(|index| results.ratio_to(index, 2));
    assert_eq!(ratios, [Some(0.5), Some(0.45), Some(1.0), None]);
    let text = table(&record.contestants, results);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].ends_with(&format!("to {}", NAMES[2].0)), "{text}");
    for (line, end) in lines[2..].iter().zip([" 0.450", " 0.500", " 1.000", "failed"]) {
        assert!(line.trim_end().ends_with(end), "{text}");
    }
    let page = page(&record).unwrap();
    assert!(page.contains("RPC servers compared") && page.contains("<td>0.450</td>"), "{page}");
}

#[test]
fn each_may_have_a_rate_of_its_own() {
    let record = rpc_record();
    let results = &record.scenarios[0];
    assert_eq!(results.rate, None);
    let rates: Vec<Option<f64>> = results.results.iter().map(|outcome| outcome.rate).collect();
    assert_eq!(rates, [Some(0.8e6), Some(1.6e6), Some(2.4e6), Some(3.2e6)]);
    // Of 2.5, 2.8 and 1.25 million a second.
    let notes = results.notes(&record.contestants);
    let late = (NAMES[2].0.to_owned(), "only 52 % of the rate".to_owned());
    assert_eq!(notes[0], late, "{notes:?}");
    assert!(notes[1].0 == "broken" && notes.len() == 2, "{notes:?}");
}

#[test]
fn records_from_before_there_were_others_are_read() {
    let mut record = record();
    let mut value = serde_json::to_value(&record).unwrap();
    value.as_object_mut().unwrap().remove("subject");
    for entry in value["contestants"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("reference");
    }
    for results in value["scenarios"].as_array_mut().unwrap() {
        for outcome in results["results"].as_array_mut().unwrap() {
            outcome.as_object_mut().unwrap().remove("rate");
        }
    }
    record.subject = Subject::Echo;
    assert_eq!(serde_json::from_value::<Record>(value).unwrap(), record);
}

#[test]
fn the_page_is_well_formed_and_has_everything() {
    let record = record();
    let page = page(&record).unwrap();
    // Only the head has what is HTML and not XML.
    let (_, body) = page.split_once("</head>").unwrap();
    let body = body.strip_suffix("</html>").unwrap();
    let document = Document::parse(body).unwrap();
    let texts = texts(document.root());
    for results in &record.scenarios {
        let title = results.scenario.to_string();
        assert_eq!(texts.iter().filter(|text| **text == title).count(), 2, "{title}");
    }
    let charts = document.descendants().filter(|node| node.has_tag_name(svg("svg"))).count();
    assert_eq!(charts, 1 + record.scenarios.len());
    for (name, _) in NAMES {
        // Once in each chart and each table; one that always failed has no mean.
        let count = texts.iter().filter(|text| **text == name).count();
        assert!(count >= 2 * record.scenarios.len(), "{name}: {count}");
    }
    assert!(texts.iter().any(|text| text.contains("failed: ") || text.contains(FAILURE)));
    assert!(texts.iter().any(|text| text == "absent: no library"));
    assert!(texts.iter().any(|text| text.contains("the generator had no time left")));
    // Nothing is loaded: the only addresses are the names of XML namespaces.
    assert_eq!(page.matches("http").count(), page.matches("xmlns=\"http").count());
}

#[test]
fn a_chart_says_who_failed() {
    let record = record();
    let chart = chart::scenario(&record, &record.scenarios[0]).unwrap();
    let document = Document::parse(&chart).unwrap();
    let failed = texts(document.root()).iter().filter(|text| *text == "failed").count();
    assert_eq!(failed, 3, "once in each panel");
}

#[test]
fn the_overview_stands_alone() {
    let chart = overview(&record()).unwrap();
    let document = Document::parse(&chart).unwrap();
    let style = document.descendants().find(|node| node.has_tag_name(svg("style"))).unwrap();
    assert!(style.text().unwrap().contains("prefers-color-scheme:dark"));
    let texts = texts(document.root());
    for text in ["millstream", "0.90", "epoll", "1.00", NAMES[2].0, "2.00"] {
        assert!(texts.iter().any(|other| other == text), "{text} is not in {texts:?}");
    }
}

#[test]
fn a_mean_of_only_some_scenarios_says_so() {
    let mut record = record();
    let all = record.comparable();
    record.scenarios[3].results[2].ratio = None;
    let chart = overview(&record).unwrap();
    assert!(chart.contains(&format!("2.00  ({} of {all})", all - 1)), "{chart}");
}

/// Every colour of a chart is replaced in the dark.
#[test]
fn charts_have_no_colour_of_their_own() {
    let record = record();
    let style = palette::style_sheet();
    let charts = [overview(&record), chart::scenario(&record, &record.scenarios[24])];
    for chart in charts.map(Result::unwrap) {
        let document = Document::parse(&chart).unwrap();
        for attribute in document.descendants().flat_map(|node| node.attributes()) {
            let (name, value) = (attribute.name(), attribute.value());
            if ["fill", "stroke"].contains(&name) && value != "none" {
                assert!(style.contains(&format!("[{name}=\"{value}\"]")), "{name} {value}");
            }
        }
    }
}

#[test]
fn a_record_without_any_result_is_shown_too() {
    let mut record = record();
    for outcome in record.scenarios.iter_mut().flat_map(|results| &mut results.results) {
        *outcome = Outcome {
            rate: None,
            failure: Some(FAILURE.into()),
            rounds: Metrics::default(),
            medians: None,
            ratio: None,
        };
    }
    assert!(page(&record).unwrap().contains("failed"));
}

fn svg(name: &str) -> (&str, &str) {
    ("http://www.w3.org/2000/svg", name)
}
