//! One schedule after another.

use super::{Rates, Schedule};
use crate::error::{Error, Result, check_len};

/// PyTorch's `SequentialLR`: a schedule until a milestone, where the next one starts at its own step 0.
#[derive(Debug)]
pub struct SequentialLr {
    /// The step at which each starts, and the schedule.
    parts: Vec<(u64, Box<dyn Schedule>)>,
}

impl SequentialLr {
    /// Starts with a schedule.
    pub fn new(first: impl Schedule + 'static) -> Self {
        Self { parts: vec![(0, Box::new(first))] }
    }

    /// Goes on with another one from step `milestone`.
    pub fn then(mut self, milestone: u64, next: impl Schedule + 'static) -> Self {
        self.parts.push((milestone, Box::new(next)));
        self
    }
}

impl Schedule for SequentialLr {
    fn name(&self) -> &'static str {
        "SequentialLR"
    }

    fn check(&self) -> Result<()> {
        for pair in self.parts.windows(2) {
            let (from, to) = (pair[0].0, pair[1].0);
            if to <= from {
                let rule = format!("milestones rise, and the one before is {from}");
                return Err(Error::Setting { what: "a milestone", value: to.to_string(), rule });
            }
            if let Some(end) = pair[0].1.end().filter(|&end| end < to - from) {
                let rule = format!("the schedule {} before it ends after {end} steps", pair[0].1.name());
                return Err(Error::Setting { what: "a milestone", value: to.to_string(), rule });
            }
        }
        self.parts.iter().try_for_each(|(_, s)| s.check())
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        let at = self.parts.iter().rposition(|(from, _)| *from <= step).unwrap_or(0);
        let (from, schedule) = &self.parts[at];
        schedule.rates(step - from, base)
    }

    fn end(&self) -> Option<u64> {
        let (from, last) = self.parts.last()?;
        last.end().map(|end| from + end)
    }

    fn observe(&mut self, metric: f64) {
        self.parts.iter_mut().for_each(|(_, s)| s.observe(metric));
    }

    fn memory(&self) -> Vec<f64> {
        self.parts.iter().flat_map(|(_, s)| s.memory()).collect()
    }

    fn remember(&mut self, memory: &[f64]) -> Result<()> {
        let own = self.memory().len();
        check_len("the schedule's memory", memory.len(), own)?;
        let mut rest = memory;
        for (_, s) in &mut self.parts {
            let (own, after) = rest.split_at(s.memory().len());
            s.remember(own)?;
            rest = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConstantLr, OneCycleLr, ReduceLrOnPlateau, StepLr};
    use super::*;

    #[test]
    fn ends_where_its_last_part_ends() {
        assert_eq!(SequentialLr::new(ConstantLr).then(5, OneCycleLr::new(1.0, 10)).end(), Some(15));
        let short = SequentialLr::new(OneCycleLr::new(1.0, 4)).then(5, ConstantLr);
        assert!(short.check().unwrap_err().to_string().contains("ends after 4 steps"));
    }

    #[test]
    fn remembers_for_its_parts() {
        let new = || SequentialLr::new(StepLr::new(2)).then(5, ReduceLrOnPlateau::new().patience(0));
        let (mut a, mut b) = (new(), new());
        [1.0, 1.0].iter().for_each(|&m| a.observe(m));
        b.remember(&a.memory()).unwrap();
        let base = Rates { lr: 1.0, momentum: None };
        assert_eq!(a.rates(5, base), b.rates(5, base));
        assert!((b.rates(5, base).lr - 0.1).abs() < 1e-12);
        assert!(b.remember(&[]).is_err());
    }
}
