//! Which node runs when, and which names a graph takes from the graphs around it.

use std::collections::{HashMap, HashSet};

use super::error::OnnxError;
use super::proto::{AttributeValue, GraphProto, NodeProto};

/// The node's place for a message.
pub(crate) fn place(index: usize, node: &NodeProto<'_>) -> String {
    let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
    match node.name {
        "" => format!("node {index} ({domain}{})", node.op_type),
        name => format!("node {index} `{name}` ({domain}{})", node.op_type),
    }
}

/// The graphs in a node's attributes.
pub(crate) fn inner<'g, 'a>(node: &'g NodeProto<'a>) -> impl Iterator<Item = &'g GraphProto<'a>> {
    node.attributes.iter().filter_map(|a| match &a.value {
        AttributeValue::Graph(graph) => Some(&**graph),
        _ => None,
    })
}

/// Names that a graph uses and does not define itself.
pub(crate) fn captured<'a>(graph: &GraphProto<'a>) -> HashSet<&'a str> {
    let mut used: HashSet<&str> = graph.outputs.iter().map(|o| o.name).collect();
    for node in &graph.nodes {
        used.extend(&node.inputs);
        inner(node).for_each(|graph| used.extend(captured(graph)));
    }
    let mut defined: HashSet<&str> = HashSet::from([""]);
    defined.extend(graph.initializers.iter().map(|t| t.name));
    defined.extend(graph.inputs.iter().map(|i| i.name));
    for node in &graph.nodes {
        defined.extend(&node.outputs);
    }
    used.retain(|name| !defined.contains(name));
    used
}

/// The nodes in an order in which they can run: each after those whose outputs it takes. Files need not be sorted.
///
/// # Errors
///
/// If two nodes write the same name, or nodes wait for each other.
pub(crate) fn order(graph: &GraphProto<'_>) -> Result<Vec<usize>, OnnxError> {
    let mut writers = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for &name in node.outputs.iter().filter(|name| !name.is_empty()) {
            if writers.insert(name, i).is_some() {
                let what = format!("a second node that writes `{name}`");
                return Err(OnnxError::new(node.offset, what).within(|| place(i, node)));
            }
        }
    }
    let mut waits = vec![0usize; graph.nodes.len()];
    let mut readers = vec![Vec::new(); graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let mut from: Vec<usize> = node.inputs.iter().filter_map(|name| writers.get(name)).copied().collect();
        from.extend(inner(node).flat_map(captured).filter_map(|name| writers.get(name)));
        from.sort_unstable();
        from.dedup();
        waits[i] = from.len();
        from.into_iter().for_each(|j| readers[j].push(i));
    }
    // The smallest node that can run runs next, so that a sorted file keeps its order.
    let mut ready: std::collections::BTreeSet<usize> = (0..waits.len()).filter(|&i| waits[i] == 0).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &j in &readers[i] {
            waits[j] -= 1;
            if waits[j] == 0 {
                ready.insert(j);
            }
        }
    }
    match (0..waits.len()).find(|&i| waits[i] > 0) {
        None => Ok(order),
        Some(i) => {
            let node = &graph.nodes[i];
            Err(OnnxError::new(node.offset, "it waits for itself").within(|| place(i, node)))
        }
    }
}
