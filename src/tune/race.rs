//! The race: who is timed how often, and when it is decided. No clock in here, so that tests need none.

use std::collections::BTreeSet;

/// When a candidate is out, and when a race is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// No candidate is out, and no race is over, before so many rounds.
    pub min_rounds: usize,
    /// The race is over after so many rounds.
    pub max_rounds: usize,
    /// A candidate is out when its fastest round takes more than so many times the leader's median.
    pub behind: f64,
    /// Two candidates are equals when their medians are within this factor. A race between equals is over after
    /// `min_rounds + 2` rounds: whoever wins, little is lost.
    pub equal: f64,
    /// Share of the cold time in what decides. In a network, weights come from a cache as rarely or as often as the
    /// network's size decides, which a layer alone does not know: 0.5 is the mean time where either is as likely.
    pub cold_share: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { min_rounds: 3, max_rounds: 11, behind: 1.08, equal: 1.005, cold_share: 0.5 }
    }
}

impl Rules {
    /// What decides, of one sample.
    pub(super) fn score(&self, s: Sample) -> f64 {
        s.warm * (1.0 - self.cold_share) + s.cold * self.cold_share
    }
}

/// Milliseconds of a run with warm and with cold weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) warm: f64,
    pub(super) cold: f64,
}

/// One candidate's rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    samples: Vec<Sample>,
    out: bool,
}

impl Track {
    fn scores(&self, rules: &Rules) -> Vec<f64> {
        self.samples.iter().map(|&s| rules.score(s)).collect()
    }

    /// Medians of the warm and of the cold times.
    pub(super) fn medians(&self) -> Sample {
        Sample {
            warm: median(self.samples.iter().map(|s| s.warm).collect()),
            cold: median(self.samples.iter().map(|s| s.cold).collect()),
        }
    }

    /// Rounds that it was timed in.
    pub(super) fn rounds(&self) -> usize {
        self.samples.len()
    }
}

/// The middle of the values, of an even number the mean of the middle two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

/// Times candidates round by round until it is decided, or `late` says that time is over, but `min_rounds` rounds in any
/// case: fewer could crown whom a slow moment of the machine spared.
///
/// `leagues` has a number for each candidate. Candidates of higher leagues are not always allowed, so each league is
/// decided for itself, among its candidates and those of the leagues below.
///
/// In each round every candidate is timed once, so that a slow second of the machine hits all of them, and each round
/// starts with the next one, so that none always follows the same.
pub(super) fn race<E>(
    leagues: &[usize],
    rules: &Rules,
    mut late: impl FnMut() -> bool,
    mut sample: impl FnMut(usize, bool) -> Result<Sample, E>,
) -> Result<Vec<Track>, E> {
    let mut tracks = vec![Track::default(); leagues.len()];
    for round in 0..rules.max_rounds.max(1) {
        let mut running: Vec<usize> = (0..tracks.len()).filter(|&i| !tracks[i].out).collect();
        let first = round % running.len();
        running.rotate_left(first);
        for (turn, &i) in running.iter().enumerate() {
            if round >= rules.min_rounds.max(1) && late() {
                return Ok(tracks);
            }
            let s = sample(i, turn == 0)?;
            tracks[i].samples.push(s);
        }
        if decided(&mut tracks, leagues, round + 1, rules) {
            break;
        }
    }
    Ok(tracks)
}

/// Takes out who is clearly behind after so many rounds; whether the race is over.
fn decided(tracks: &mut [Track], leagues: &[usize], rounds: usize, rules: &Rules) -> bool {
    if rounds < rules.min_rounds {
        return false;
    }
    let mut over = true;
    for &league in leagues.iter().collect::<BTreeSet<_>>() {
        let medians: Vec<(usize, f64)> = tracks
            .iter()
            .enumerate()
            .filter(|&(i, t)| leagues[i] <= league && !t.out)
            .map(|(i, t)| (i, median(t.scores(rules))))
            .collect();
        let best = medians.iter().map(|&(_, m)| m).fold(f64::INFINITY, f64::min);
        let mut abreast = Vec::new();
        for (i, m) in medians {
            let fastest = tracks[i].scores(rules).into_iter().fold(f64::INFINITY, f64::min);
            if fastest <= best * rules.behind {
                abreast.push(m);
            } else if leagues[i] == league {
                // Behind where it has the fewest rivals is behind everywhere.
                tracks[i].out = true;
            }
        }
        let equals = rounds >= rules.min_rounds + 2 && abreast.iter().all(|m| *m <= best * rules.equal);
        over &= abreast.len() == 1 || equals;
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::convert::Infallible;

    /// Races candidates whose time in their `k`-th sample is given; returns the tracks, and the order of samples.
    fn run(times: &[fn(usize) -> f64], rules: &Rules) -> (Vec<Track>, Vec<usize>) {
        let (mut order, mut seen) = (Vec::new(), vec![0; times.len()]);
        let tracks = race(
            &vec![0; times.len()],
            rules,
            || false,
            |i, _| {
                order.push(i);
                seen[i] += 1;
                let ms = times[i](seen[i]);
                Ok::<_, Infallible>(Sample { warm: ms, cold: ms })
            },
        );
        let Ok(tracks) = tracks;
        (tracks, order)
    }

    fn winner(tracks: &[Track]) -> usize {
        let m: Vec<f64> = tracks.iter().map(|t| t.medians().warm).collect();
        (0..m.len()).min_by(|&a, &b| m[a].total_cmp(&m[b])).unwrap()
    }

    #[test]
    fn a_clear_leader_ends_the_race_early_and_a_close_one_does_not() {
        let (tracks, order) = run(&[|_| 1.0, |_| 2.0], &Rules::default());
        assert_eq!((winner(&tracks), order), (0, vec![0, 1, 1, 0, 0, 1]));
        let (tracks, _) = run(&[|_| 1.03, |_| 1.0, |_| 3.0], &Rules::default());
        assert_eq!(winner(&tracks), 1);
        assert_eq!(tracks.iter().map(Track::rounds).collect::<Vec<_>>(), [11, 11, 3], "who is behind is out");
        let (tracks, _) = run(&[|_| 1.0, |_| 1.001], &Rules::default());
        assert_eq!(tracks[0].rounds(), 5, "equals need no photo finish");
        let (tracks, _) = run(&[|_| 1.0], &Rules::default());
        assert_eq!(tracks[0].rounds(), 3);
    }

    #[test]
    fn a_burst_of_noise_neither_crowns_nor_expels() {
        // The better one has four rounds of eleven at three times its time.
        let noisy: fn(usize) -> f64 = |k| if (2..6).contains(&k) { 3.0 } else { 1.0 };
        let (tracks, _) = run(&[noisy, |_| 1.05], &Rules::default());
        assert_eq!((winner(&tracks), tracks[0].rounds()), (0, 11));
    }

    #[test]
    fn each_league_has_a_race_of_its_own() {
        // The fastest may not always run: of the others, the second and the third are too close to call early.
        let time = |i: usize| [1.0, 3.0, 3.05, 9.0][i];
        let sample = |i: usize, _| Ok::<_, Infallible>(Sample { warm: time(i), cold: time(i) });
        let rounds = |leagues: &[usize]| {
            let Ok(tracks) = race(leagues, &Rules::default(), || false, sample);
            tracks.iter().map(Track::rounds).collect::<Vec<_>>()
        };
        assert_eq!(rounds(&[0, 0, 0, 0]), [3; 4]);
        assert_eq!(rounds(&[1, 0, 0, 0]), [11, 11, 11, 3]);
    }

    #[test]
    fn time_over_leaves_the_least_number_of_rounds() {
        let sample = |i: usize, _| Ok::<_, Infallible>(Sample { warm: 1.0 + i as f64, cold: 1.0 });
        // Too close to call: in time it would take all eleven rounds.
        let rules = Rules { equal: 1.0, behind: 4.0, ..Rules::default() };
        for (late, rounds) in [(true, 3), (false, 11)] {
            let Ok(tracks) = race(&[0; 3], &rules, || late, sample);
            assert_eq!(tracks.iter().map(Track::rounds).collect::<Vec<_>>(), [rounds; 3]);
        }
    }

    #[test]
    fn cold_times_weigh_as_the_rules_say() {
        let sample = |i, _| Ok::<_, Infallible>([Sample { warm: 1.0, cold: 4.0 }, Sample { warm: 2.0, cold: 2.0 }][i]);
        for (cold_share, best) in [(0.0, 0), (0.5, 1), (1.0, 1)] {
            let rules = Rules { cold_share, ..Rules::default() };
            let Ok(tracks) = race(&[0; 2], &rules, || false, sample);
            let score: Vec<f64> = tracks.iter().map(|t| rules.score(t.medians())).collect();
            assert!(score[best] < score[1 - best], "{cold_share}: {score:?}");
            assert!(tracks[1 - best].out);
        }
    }

    #[test]
    fn medians() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0]), median(vec![5.0])), (2.0, 2.5, 5.0));
    }
}
