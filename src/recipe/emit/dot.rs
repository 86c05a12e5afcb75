//! The graph for Graphviz: stages as boxes, filled where a cache has the result.

use super::yaml;
use crate::recipe::plan_report::PlanReport;
use std::fmt::Write;

pub(super) fn graph(plan: &PlanReport) -> String {
    let mut out =
        format!("digraph {} {{\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n", yaml(&plan.recipe));
    for stage in &plan.stages {
        let style = if stage.cached { ", style=filled, fillcolor=lightgrey" } else { "" };
        let label = format!("{}\n{}", stage.stage, stage.kind);
        let _ = writeln!(out, "  {} [label={}{style}];", yaml(&stage.stage), yaml(&label));
    }
    for stage in &plan.stages {
        for other in &stage.needs {
            let _ = writeln!(out, "  {} -> {};", yaml(other), yaml(&stage.stage));
        }
    }
    out.push_str("}\n");
    out
}
