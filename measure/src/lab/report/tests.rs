use super::*;
use crate::lab::planted::{Plan, Planted, chance_ns};
use crate::lab::records::{Attach, Way};

fn add(planted: &mut Planted, plan: &Plan, thousandths: u64) {
    planted.add(plan, |packets, random| chance_ns(packets, random) * thousandths / 1000);
}

/// Runs of all experiments.
fn whole(name: &str, requests: u32, repeats: u32) -> Planted {
    let mut planted = Planted::new(name);
    for repeat in 0..repeats {
        let plan = |way, load| Plan { requests, ..Plan::of(way, load, repeat) };
        for load in [0, 10, 20, 30, 40] {
            add(&mut planted, &plan(Way::Ecmp, load), 1000 + 30 * u64::from(load));
            add(&mut planted, &plan(Way::Split, load), 950);
        }
        for threshold_packets in [1, 10, 100] {
            let mut plan = plan(Way::Split, 40);
            plan.settings.threshold_packets = threshold_packets;
            add(&mut planted, &plan, 1400 + 3 * u64::from(threshold_packets));
        }
        let others = [(Way::Paper, 1000), (Way::Spray, 1500), (Way::Priority, 900)];
        others.iter().for_each(|(way, times)| add(&mut planted, &plan(*way, 40), *times));
        for (way, attach, gateway_ns) in [
            (Way::Kernel, Attach::Native, 21_000),
            (Way::Split, Attach::Native, 45_000),
            (Way::Split, Attach::Generic, 71_000),
        ] {
            let mut plan = Plan { gateway_ns: Some(gateway_ns), ..plan(way, 0) };
            plan.settings.mix = "idle".into();
            plan.settings.attach = attach;
            add(&mut planted, &plan, 500 + gateway_ns as u64 / 100);
        }
    }
    let failed =
        Plan { failure: Some("the tap of <wan-a> went".into()), ..Plan::of(Way::Ecmp, 40, 9) };
    add(&mut planted, &failed, 1000);
    planted
}

#[test]
fn a_report_of_all_experiments_has_every_figure_and_names_what_failed() {
    let planted = whole("report-whole", 150, 2);
    let summary = write(&planted.folder).unwrap();
    let expected = [
        "speedup-by-size.svg",
        "speedup-by-threshold.svg",
        "speedup-by-load.svg",
        "distributions.svg",
        "long-flows.svg",
        "alternatives.svg",
        "overhead.svg",
    ];
    assert_eq!(summary.figures, expected);
    let page = std::fs::read_to_string(&summary.report).unwrap();
    for figure in expected {
        let svg = std::fs::read_to_string(planted.folder.join(FIGURES).join(figure)).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{figure}");
        assert!(page.contains(&svg), "{figure} is not in the page");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{figure}");
    }
    // It opens offline: nothing is fetched.
    let fetched = ["src=", "@import", "url(", "<script", "<link"];
    assert!(fetched.iter().all(|word| !page.contains(word)));
    assert!(page.contains("the tap of &lt;wan-a&gt; went"));
    assert!(
        page.contains("lanesplit-lab paper --seed 7 &lt;here&gt;")
            && page.contains("Planted, 2.6 GHz")
    );
    let text = summary.to_string();
    assert!(text.contains("failed runs, which are in no figure"), "{text}");
    assert!(text.trim_end().ends_with("report.html"), "{text}");
    let json = std::fs::read_to_string(planted.folder.join(SUMMARY)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["figures"].as_array().unwrap().len(), expected.len());
    let first = &json["comparisons"][0];
    assert!(first["sizes"][0]["mean"]["low"].is_number(), "{first}");
}

#[test]
fn a_demonstration_has_a_short_report() {
    let mut planted = Planted::new("report-demo");
    add(&mut planted, &Plan::of(Way::Ecmp, 40, 0), 2000);
    add(&mut planted, &Plan::of(Way::Split, 40, 0), 1000);
    let summary = write(&planted.folder).unwrap();
    assert_eq!(summary.figures, ["speedup-by-size.svg", "distributions.svg", "long-flows.svg"]);
    let text = summary.to_string();
    assert!(text.contains("2.00 ("), "{text}");
    assert!(text.contains("not measured") && text.contains("reached"), "{text}");
}

#[test]
fn a_folder_in_which_every_run_failed_has_a_report_that_says_so() {
    let mut planted = Planted::new("report-failed");
    let failed =
        Plan { failure: Some("nginx did not start".into()), ..Plan::of(Way::Split, 40, 0) };
    add(&mut planted, &failed, 1000);
    let summary = write(&planted.folder).unwrap();
    assert!(summary.figures.is_empty());
    let page = std::fs::read_to_string(&summary.report).unwrap();
    assert!(
        page.contains("nginx did not start") && page.contains("There are no two runs to compare")
    );
}

#[test]
fn a_folder_without_a_laboratory_is_an_error_that_names_it() {
    let error = write(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/lab.json"), "{error}");
}
