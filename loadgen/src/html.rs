//! One page without other files: results with charts of latency and throughput, drawn as SVG.

use plotters::prelude::{
    ChartBuilder, Color, IntoDrawingArea, IntoLogRange, LineSeries, RGBColor, SVGBackend, WHITE,
};

use crate::report::Report;

/// One result of a page.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) title: String,
    pub(crate) text: String,
    /// What is not as it should be.
    pub(crate) problems: &'a [String],
    /// What was measured, when it came to that.
    pub(crate) report: Option<&'a Report>,
}

const SIZE: (u32, u32) = (860, 320);
const ACKNOWLEDGED: RGBColor = RGBColor(0, 90, 181);
const DELIVERED: RGBColor = RGBColor(220, 50, 32);

/// The page.
///
/// # Errors
/// When a chart cannot be drawn.
pub(crate) fn page(title: &str, sections: &[Section<'_>]) -> Result<String, String> {
    let title = escape(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body{{font:15px sans-serif;max-width:900px;margin:2em auto;padding:0 1em}}\
         pre{{background:#f4f4f4;padding:.8em;overflow-x:auto}}svg{{max-width:100%;height:auto}}</style>\n\
         </head><body>\n<h1>{title}</h1>\n"
    );
    for section in sections {
        page += &format!(
            "<h2>{}</h2>\n<p>{}</p>\n",
            escape(&section.title),
            escape(&section.text)
        );
        for problem in section.problems {
            page += &format!("<p><b>{}</b></p>\n", escape(problem));
        }
        if let Some(report) = section.report {
            page += &charts(report)?;
        }
    }
    page += "</body></html>\n";
    Ok(page)
}

fn charts(report: &Report) -> Result<String, String> {
    Ok(format!(
        "<pre>{}</pre>\n<h3>Latency to acknowledgement</h3>\n{}\n\
         <h3>Throughput: <span style=\"color:#005ab5\">messages acknowledged</span>, \
         <span style=\"color:#dc3220\">recipients delivered to</span></h3>\n{}\n",
        escape(&report.text()),
        latency(report)?,
        throughput(report)?
    ))
}

/// Text as text, in content and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // HTML has no way to write other control characters.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The percentile curve; the axis goes by the odds, so each nine has the same room.
fn latency(report: &Report) -> Result<String, String> {
    let points: Vec<(f64, f64)> = report
        .summary
        .latencies
        .curve()
        .into_iter()
        .map(|(odds, us)| (odds, (us / 1000.0).max(0.001)))
        .collect();
    let right = points.last().map_or(1.0, |(odds, _)| *odds).max(10.0);
    let low = points.first().map_or(0.001, |(_, ms)| *ms) / 1.5;
    let high = points.last().map_or(1.0, |(_, ms)| *ms) * 1.5;
    let mut svg = String::new();
    let drawn = (|| {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d((1f64..right).log_scale(), (low..high).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("share of messages")
            .y_desc("milliseconds")
            .x_label_formatter(&|odds| share(*odds))
            .y_label_formatter(&|ms| short(*ms))
            .draw()?;
        chart.draw_series(LineSeries::new(points, ACKNOWLEDGED.stroke_width(2)))?;
        area.present()
    })();
    drawn.map_err(|error| format!("the chart of latency: {error}"))?;
    Ok(svg)
}

/// The share of messages that have these odds against being slower: 100 is 99%.
fn share(odds: f64) -> String {
    format!("{}%", short(100.0 - 100.0 / odds))
}

/// A number with at most three decimals.
fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn throughput(report: &Report) -> Result<String, String> {
    let rates = report.summary.timeline.rates();
    let end = rates.last().map_or(1.0, |(second, ..)| *second).max(0.1);
    let top = rates
        .iter()
        .fold(1.0f64, |top, (_, acknowledged, delivered)| {
            top.max(*acknowledged).max(*delivered)
        });
    let mut svg = String::new();
    let drawn = (|| {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..end, 0.0..top * 1.05)?;
        chart
            .configure_mesh()
            .x_desc("seconds")
            .y_desc("a second")
            .x_label_formatter(&|second| short(*second))
            .y_label_formatter(&|rate| short(*rate))
            .draw()?;
        let acknowledged = rates.iter().map(|(second, rate, _)| (*second, *rate));
        chart.draw_series(LineSeries::new(acknowledged, ACKNOWLEDGED.stroke_width(2)))?;
        let delivered = rates.iter().map(|(second, _, rate)| (*second, *rate));
        chart.draw_series(LineSeries::new(delivered, DELIVERED.stroke_width(2)))?;
        area.present()
    })();
    drawn.map_err(|error| format!("the chart of throughput: {error}"))?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Times};
    use std::time::Duration;

    #[test]
    fn nothing_that_was_text_becomes_markup() {
        assert_eq!(
            escape("<a href=\"x\" b='y'>&\u{0}\n"),
            "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;\u{fffd}\n"
        );
    }

    fn section_of(report: &Report) -> Section<'_> {
        Section {
            title: "<script>alert(1)</script>".to_owned(),
            text: "a & b".to_owned(),
            problems: &[],
            report: Some(report),
        }
    }

    #[test]
    fn a_page_is_one_file_with_two_charts_and_no_foreign_markup() {
        let load = crate::options::tests::load(&["--messages", "100"]).unwrap();
        let ledger = Ledger::new(&load).unwrap();
        for number in 0..100 {
            let latency = Duration::from_micros(100 + number * number);
            let times = Times {
                latency,
                service: latency,
            };
            ledger.acknowledged(number, &[], 100, times);
        }
        ledger.refused("550 <b>no</b>");
        let report = Report::new(&load, ledger.summary(), Duration::from_secs(1), true);
        let page = page("<t>", &[section_of(&report)]).unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("</svg>").count(), 2);
        for foreign in ["<script", "<b>", "<t>", "src=", "@import", "<link"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("550 &lt;b&gt;no") && page.contains("a &amp; b"));
    }

    #[test]
    fn a_run_without_any_message_has_a_page_too() {
        let load = crate::options::tests::load(&[]).unwrap();
        let summary = Ledger::new(&load).unwrap().summary();
        let report = Report::new(&load, summary, Duration::ZERO, false);
        assert!(page("x", &[section_of(&report)]).is_ok());
    }

    #[test]
    fn shares_are_named_by_their_nines() {
        let names = [1.0, 10.0, 100.0, 1000.0].map(share);
        assert_eq!(names, ["0%", "90%", "99%", "99.9%"]);
    }
}
