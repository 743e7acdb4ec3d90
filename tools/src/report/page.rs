//! The page: one HTML file that needs nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::{self, Figure, theme};
use super::compare::Comparison;
use super::data::{Layer, Report, Set};
use super::figures::{self, threads};
use crate::failure::Outcome;
use crate::machine;

const STYLE: &str = include_str!("page.css");
/// Variables of a dark page; those of a light one stand in the style sheet.
const DARK: &str = "--ink:#e6eaef;--muted:#a3adb8;--line:#2f363e;--page:#101418;--card:#181d23;--good:#56d39b;\
                    --bad:#ff8a80;--link:#7ab7ff";

/// Renders a report, and what became of an older one.
pub fn render(report: &Report, comparison: Option<&Comparison>) -> Outcome<String> {
    let figures = charts::all(report)?;
    let cpu = report.machine.cpu.as_deref().unwrap_or("unknown CPU");
    // Paper is light, whatever the screen is.
    let dark = format!("@media screen and (prefers-color-scheme:dark){{:root{{{DARK}}}\n{}}}", theme::dark_rules());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "swath report: " (cpu) ", " (day(report)) }
                style { (PreEscaped(STYLE)) (PreEscaped(dark)) }
            }
            body {
                header {
                    h1 { "Convolutions with swath " (report.swath) }
                    p.quiet { (cpu) ", " (report.machine.level) ", " (day(report)) }
                }
                (warnings(report, comparison))
                (summary(report))
                nav {
                    a href="#machine" { "Machine and method" }
                    @if comparison.is_some() { a href="#compared" { "Compared" } }
                    @for set in &report.sets { a href={ "#set-" (charts::id(&set.name)) } { (set.name) } }
                }
                @for figure in figures.iter().filter(|f| f.set.is_none()) { (picture(figure)) }
                @if let Some(c) = comparison { (compared(c)) }
                @for set in &report.sets {
                    section {
                        h2 id={ "set-" (charts::id(&set.name)) } { (set.name) }
                        @for figure in figures.iter().filter(|f| f.set.as_ref() == Some(&set.name)) { (picture(figure)) }
                        (numbers(report, set))
                    }
                }
                (about(report))
            }
        }
    };
    // Control characters, which a JSON file may hold, are no part of XML.
    Ok(page.into_string().replace(|c: char| c.is_control() && c != '\n', "\u{fffd}"))
}

fn day(report: &Report) -> &str {
    report.date.split('T').next().unwrap_or(&report.date)
}

fn picture(figure: &Figure) -> Markup {
    html! {
        figure id=(figure.id) {
            h3 { (figure.title) }
            div.scroll { (PreEscaped(&figure.svg)) }
            figcaption { (figure.caption) }
        }
    }
}

fn warnings(report: &Report, comparison: Option<&Comparison>) -> Markup {
    html! {
        @if report.timing.brief {
            p.warning { "Measured with " code { "--brief" } ": an impression, single layers may be off by several per cent." }
        }
        @if let Some(c) = comparison {
            @for w in &c.warnings { p.warning { "Compared with an older report: " (w) "." } }
        }
    }
}

/// The class of a ratio: faster, as fast, slower.
fn verdict(ratio: f64) -> &'static str {
    if ratio >= 1.03 {
        "good"
    } else if ratio < 0.97 {
        "bad"
    } else {
        ""
    }
}

fn summary(report: &Report) -> Markup {
    let peers = report.peers();
    if report.layers().next().is_none() {
        return html! { p { "This report has no layers." } };
    }
    html! {
        (tiles(report))
        @for verdict in figures::verdicts(report) { p { (verdict) "." } }
        div.scroll {
            table {
                caption { "Every set: geometric mean of the layers, and the network's total" }
                thead {
                    tr {
                        th.l { "set" } th { "threads" } th { "layers" }
                        @for p in &peers { th { "vs " (p) ": mean" } th { "network total" } th.l { "slowest layer" } }
                        th { "GFLOP/s, mean" } th { "total ms" } th { "total, of the peak" } th.l { "lowest share of the peak" }
                    }
                }
                tbody {
                    @for set in &report.sets {
                        @for (at, &n) in report.threads.iter().enumerate() { (figures_row(report, set, at, n, &peers)) }
                    }
                }
            }
        }
        @for p in &peers {
            p {
                "Slowest against " (p) ": "
                @for (i, (ratio, n, label)) in figures::slowest_against(report, p, 5).iter().enumerate() {
                    @if i > 0 { "; " }
                    span class=(verdict(*ratio)) { (format!("{ratio:.2}")) } " " (label) " (" (threads(*n)) ")"
                }
                "."
            }
        }
    }
}

fn figures_row(report: &Report, set: &Set, at: usize, threads: usize, peers: &[String]) -> Markup {
    let Some(f) = figures::figures(report, set, at) else { return html! {} };
    let share = f.gflop / f.total_ms * 1e3 / report.machine.peak / threads as f64;
    html! {
        tr {
            td.l { (set.name) } td { (threads) } td { (set.layers.len()) }
            @for p in peers {
                @match figures::versus(set, at, p) {
                    Some(v) => {
                        td class=(verdict(v.mean)) { (format!("{:.2}", v.mean)) }
                        td class=(verdict(v.total)) { (format!("{:.2}", v.total)) }
                        td.l.wrap {
                            (format!("{:.2}: {}", v.slowest.1, v.slowest.0))
                            @if v.layers < set.layers.len() { " (it has " (v.layers) " layers)" }
                        }
                    }
                    None => { td {} td {} td.l {} }
                }
            }
            td { (format!("{:.1}", f.gflops)) } td { (format!("{:.3}", f.total_ms)) }
            td { (format!("{:.0} %", 100.0 * share)) }
            td.l.wrap { (format!("{:.0} %: {}", 100.0 * f.slowest.1, f.slowest.0)) }
        }
    }
}

/// The numbers that a reader wants first.
fn tiles(report: &Report) -> Markup {
    let tile = |number: String, what: String| html! { div.tile { b { (number) } span { (what) } } };
    let peak = report.machine.peak;
    let count = report.layers().count();
    html! {
        div.tiles {
            @for (at, &n) in report.threads.iter().enumerate() {
                @let all = report.layers().map(|(_, l)| l.gflops(l.runs[at].chosen().ms));
                @if let Some(mean) = figures::geometric_mean(all) {
                    (tile(format!("{mean:.1}"), format!(
                        "GFLOP/s, geometric mean of {count} layers on {}, {:.0} % of the peak", threads(n), 100.0 * mean / peak / n as f64
                    )))
                }
            }
            @for p in &report.peers() {
                @for (at, &n) in report.threads.iter().enumerate() {
                    @let ratios = report.layers().filter_map(|(_, l)| Some(l.runs[at].peer(p)? / l.runs[at].chosen().ms));
                    @if let Some(mean) = figures::geometric_mean(ratios) {
                        (tile(format!("{mean:.2}x"), format!("the speed of {p} on {}, geometric mean of all layers", threads(n))))
                    }
                }
            }
            @for q in &figures::qualities(report, 0) {
                (tile(format!("{:.0} %", 100.0 * q.within(q.limit())), format!(
                    "of {} problems: {} choice within {:.0} % of the best candidate, {}",
                    q.count(), q.name(), 100.0 * (q.limit() - 1.0), threads(report.threads[0])
                )))
            }
        }
    }
}

fn compared(c: &Comparison) -> Markup {
    let marked: Vec<_> =
        c.slower().map(|c| ("slower", "bad", c)).chain(c.faster().map(|c| ("faster", "good", c))).collect();
    html! {
        section {
            h2 id="compared" { "Compared with an older report" }
            p.quiet { (c.old) }
            p { (c.verdict()) }
            @if !marked.is_empty() {
                div.scroll {
                    table {
                        thead {
                            tr {
                                th.l { "" } th.l { "layer" } th { "threads" } th { "ms before" } th { "ms now" } th { "speed" }
                                th.l { "algorithm" }
                            }
                        }
                        tbody {
                            @for (word, class, change) in marked {
                                tr {
                                    td class=(format!("l {class}")) { (word) } td.l { (change.label) } td { (change.threads) }
                                    td { (format!("{:.4}", change.ms[0])) } td { (format!("{:.4}", change.ms[1])) }
                                    td { (format!("x{:.2}", 1.0 / change.ratio())) } td.l { (change.algorithms()) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// All numbers of a set, a table for every number of threads.
fn numbers(report: &Report, set: &Set) -> Markup {
    let peers = report.peers();
    let choosers = report.choosers();
    let algorithms: Vec<String> = report.algorithms().into_iter().filter(|a| has(set, a)).collect();
    html! {
        @for (at, &n) in report.threads.iter().enumerate() {
            div.scroll {
                table {
                    caption { (set.name) " on " (threads(n)) ": under the names of algorithms and peers are milliseconds, the default choice's in bold" }
                    thead {
                        tr {
                            th.l { "layer" } th { "times" } th { "MFLOP" } th { "FLOP/byte" }
                            th { "GFLOP/s" } th { "of the peak" }
                            @for p in &peers { th { "vs " (p) } }
                            @for by in &choosers { th.l { (by) } th { "over best" } }
                            @for a in &algorithms { th { (a) } }
                            th { "noise" }
                            @for p in &peers { th { (p) } th.l { "its kernel" } }
                        }
                    }
                    tbody { @for layer in &set.layers { (row(report, set, layer, at, [&algorithms, &choosers, &peers])) } }
                }
            }
        }
        details {
            summary { "The problems in benchdnn's notation" }
            @for layer in &set.layers { div { code { (layer.problem) @if layer.times > 1 { "*" (layer.times) } } } }
        }
    }
}

fn has(set: &Set, algorithm: &str) -> bool {
    set.layers.iter().flat_map(|l| &l.runs).any(|r| r.ms(algorithm).is_some())
}

fn row(report: &Report, set: &Set, layer: &Layer, at: usize, columns: [&[String]; 3]) -> Markup {
    let [algorithms, choosers, peers] = columns;
    let run = &layer.runs[at];
    let chosen = run.chosen();
    html! {
        tr {
            td.l { (layer.label(&set.name)) } td { (layer.times) }
            td { (format!("{:.1}", layer.flop as f64 / 1e6)) } td { (format!("{:.1}", layer.intensity())) }
            td { (format!("{:.1}", layer.gflops(chosen.ms))) }
            td { (format!("{:.0} %", 100.0 * figures::share(report, layer, run))) }
            @for p in peers {
                @match run.peer(p).map(|ms| ms / chosen.ms) {
                    Some(ratio) => td class=(verdict(ratio)) { (format!("{ratio:.2}")) },
                    None => td {},
                }
            }
            @for by in choosers {
                @match run.choice(by) {
                    Some(algorithm) => {
                        @let loss = run.loss(by).unwrap_or(1.0);
                        td.l { (algorithm) } td class=(if loss > 1.07 { "bad" } else { "" }) { (format!("{loss:.2}")) }
                    }
                    None => { td.l {} td {} }
                }
            }
            @for a in algorithms {
                td class=(if *a == chosen.algorithm { "chosen" } else { "" }) {
                    @if let Some(ms) = run.ms(a) { (format!("{ms:.4}")) }
                }
            }
            td { (format!("{:.1} %", 100.0 * (chosen.median_ms / chosen.ms - 1.0))) }
            @for p in peers {
                @match run.peers.iter().find(|t| t.peer == *p) {
                    Some(t) => { td { (format!("{:.4}", t.ms)) } td.l { (t.implementation) } }
                    None => { td {} td.l {} }
                }
            }
        }
    }
}

fn about(report: &Report) -> Markup {
    let m = &report.machine;
    let caches: Vec<String> = m.caches.iter().map(|c| format!("L{} {}", c.level, machine::bytes(c.bytes))).collect();
    let rates: Vec<String> = m.bandwidths.iter().map(|b| format!("{} {:.1} GB/s", b.from, b.gb_per_s)).collect();
    let t = &report.timing;
    let counts: Vec<String> = report.threads.iter().map(usize::to_string).collect();
    html! {
        section {
            h2 id="machine" { "Machine and method" }
            dl {
                dt { "CPU" } dd { (m.cpu.as_deref().unwrap_or("unknown")) ", " (m.architecture) ", " (m.cores) " cores" }
                dt { "Level" } dd { (m.level) }
                dt { "Caches" } dd { @if caches.is_empty() { "unknown" } @else { (caches.join(", ")) } }
                dt { "FMA peak" } dd { (format!("{:.1}", m.peak)) " GFLOP/s on one core" }
                dt { "Reading" } dd { (rates.join(", ")) ", on one core" }
                dt { "Threads" } dd { (counts.join(", ")) }
                dt { "Accuracy" } dd { (t.accuracy) @if t.accuracy == "exact" { ": no Winograd, no bf16x6" } }
                dt { "Weights" } dd { @if t.cold { "other ones in every run, from memory" } @else { "warm" } ", packed beforehand" }
                dt { "Measured" } dd { (report.date) ", swath " (report.swath) }
                dt { "Command" } dd { code { (report.command) } }
                @if let Some(noise) = figures::noise(report) {
                    dt { "Noise" } dd { "a median round takes " (format!("{:.1} %", 100.0 * (noise - 1.0))) " longer than the smallest" }
                }
            }
            p {
                "Times are the smallest mean of " (t.rounds * t.passes) " rounds"
                @if t.passes > 1 { " (" (t.passes) " passes, before each of which the peers ran)" }
                ", each of about " @if t.brief { "0.2" } @else { "0.6" } " GFLOP. All algorithms of a layer take turns round by round, \
                so that a burst of noise hits all alike; those that take more than twice the fastest one's time sit out the rounds \
                after the second. Activations are in swath's blocked layout (NCHW where there are fewer than 16 input channels). \
                GFLOP count every tap, also those in the padding. Peers' times are the smallest of all their runs. The column \
                noise is how much longer the median round took."
            }
        }
    }
}
