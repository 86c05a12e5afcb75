//! How many drafts of a source pay. With a the share of drafts that are right where the one before was, c the cost of a
//! draft and v(n) the time of reading n tokens together, both in steps of the model, k drafts take
//!
//! ```text
//! tokens(k) = 1 + a + a² + … + a^k        gain(k) = tokens(k) / (v(k + 1) + k · c)
//! ```
//!
//! The k of the largest gain is chosen; none where it is not above 1. A source that does not pay is asked again for one
//! draft after a pause, which doubles as long as it fails.
//!
//! A source whose drafts are not cheap may lose, all of them wrong, what it has won and a fiftieth of the steps so far: so by
//! these times a sequence takes no more than that longer, however bad the source. With n tokens that it has not read
//!
//! ```text
//! loss(k) = v(k + 1) + (k + READING · n) · c − 1      credit = Σ (won − lost) + steps / 50, at most 4
//! ```

/// Most drafts of a round.
pub const MAX_DRAFTS: usize = 15;

/// Part of a step that a further row takes, until times are noted.
const ROW: f32 = 0.25;
/// The least part of a step that a further row is taken to take beyond those that were timed.
const LEAST_ROW: f32 = 0.03;
/// Drafts that the first estimate of the share counts as.
const PRIOR: f32 = 6.0;
/// The first estimate: most sources are right as often where they pay at all.
const FIRST_SHARE: f32 = 0.7;
/// Drafts that the estimate remembers, about.
const MEMORY: f32 = 48.0;
/// A gain that does not repay noise in times.
const LEAST_GAIN: f32 = 1.03;
/// Rounds until a source that did not pay is asked again, at first and at most.
const PAUSES: (u32, u32) = (8, 512);
/// A draft that takes a smaller part of a step costs nothing.
const CHEAP: f32 = 0.02;
/// Part of every step that a source with a cost may lose.
const ALLOWANCE: f32 = 0.02;
/// Steps that it may lose at most, whatever it has won.
const MOST_CREDIT: f32 = 4.0;
/// Time of reading a token among many, of that of a draft: most of a small model is its head, which is not computed then.
pub const READING: f32 = 0.1;

/// A source's record, and the times of its model.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Drafts right and tried, older ones with less weight.
    right: f32,
    tried: f32,
    cost: f32,
    /// Time of reading n + 1 tokens together, in steps; 0 where none was noted.
    rows: [f32; MAX_DRAFTS + 1],
    /// Rounds to rest, and the length of the pause.
    resting: u32,
    pause: u32,
    /// Steps that it may lose.
    credit: f32,
}

/// What a source should do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promise {
    /// Tokens to draft.
    pub drafts: usize,
    /// Tokens per step that they promise.
    pub gain: f32,
}

impl Pace {
    /// For drafts that each take `cost` of the time of a step.
    pub fn new(cost: f32) -> Self {
        Pace {
            right: PRIOR * FIRST_SHARE,
            tried: PRIOR,
            cost,
            rows: [0.0; MAX_DRAFTS + 1],
            resting: 0,
            pause: PAUSES.0,
            credit: 0.0,
        }
    }

    /// Steps that are lost where `drafts` drafts are wrong, of a source that is `behind` tokens of the sequence.
    fn loss(&self, drafts: usize, behind: usize) -> f32 {
        self.time(drafts) + (drafts as f32 + READING * behind as f32) * self.cost - 1.0
    }

    /// Whether it may lose that much.
    fn affords(&self, drafts: usize, behind: usize) -> bool {
        self.cost < CHEAP || self.loss(drafts, behind) <= self.credit
    }

    /// Notes steps that were won, or lost where it is negative.
    fn earn(&mut self, steps: f32) {
        self.credit = (self.credit + steps).min(MOST_CREDIT);
    }

    /// The share of drafts that are right where the one before was.
    fn share(&self) -> f32 {
        self.right / self.tried
    }

    /// Whether its drafts do not pay at present.
    pub fn is_resting(&self) -> bool {
        self.resting > 0
    }

    /// What to do, with at most `most` drafts, where it has not read `behind` tokens of the sequence.
    pub fn promise(&self, most: usize, behind: usize) -> Promise {
        if self.resting > 0 || !self.affords(1, behind) {
            return Promise { drafts: 0, gain: 1.0 };
        }
        let most = (1..=most.min(MAX_DRAFTS)).rev().find(|&drafts| self.affords(drafts, behind)).unwrap_or(0);
        let best = self.best(most);
        // A source whose pause is over shows with one draft whether it pays again.
        if best.drafts == 0 && most > 0 { Promise { drafts: 1, gain: 1.0 } } else { best }
    }

    /// The number of drafts, `most` at most, that promises most; none where none pays.
    fn best(&self, most: usize) -> Promise {
        let mut best = Promise { drafts: 0, gain: LEAST_GAIN };
        let (mut tokens, mut chance) = (1.0, 1.0);
        for drafts in 1..=most {
            chance *= self.share();
            tokens += chance;
            let gain = tokens / (self.time(drafts) + drafts as f32 * self.cost);
            if gain > best.gain {
                best = Promise { drafts, gain };
            }
        }
        best
    }

    /// Notes a round of `drafted` tokens, the first `confirmed` of which were right, before which it had to read `behind` tokens.
    pub fn note(&mut self, drafted: usize, confirmed: usize, behind: usize) {
        let confirmed = confirmed.min(drafted);
        self.earn(ALLOWANCE + confirmed as f32 - self.loss(drafted, behind));
        // The drafts after a wrong one say nothing.
        let tried = confirmed + usize::from(confirmed < drafted);
        let keep = 1.0 - tried as f32 / (MEMORY + tried as f32);
        self.right = self.right * keep + confirmed as f32;
        self.tried = self.tried * keep + tried as f32;
        let pays = self.gain_of_one() > LEAST_GAIN || self.best(MAX_DRAFTS).gain > LEAST_GAIN;
        if pays {
            self.pause = PAUSES.0;
        } else {
            self.resting = self.pause;
            self.pause = (2 * self.pause).min(PAUSES.1);
        }
    }

    /// Time of reading so many drafts with the token before them: as noted, or by the time of fewer and what a row took of
    /// it.
    fn time(&self, drafts: usize) -> f32 {
        let noted = (1..=drafts).rev().find(|&fewer| self.rows[fewer] > 0.0);
        let (fewer, time, row) = match noted {
            Some(fewer) => (fewer, self.rows[fewer], ((self.rows[fewer] - 1.0) / fewer as f32).max(LEAST_ROW)),
            None => (0, 1.0, ROW),
        };
        time + row * (drafts - fewer) as f32
    }

    fn gain_of_one(&self) -> f32 {
        (1.0 + self.share()) / (self.time(1) + self.cost)
    }

    /// Notes a round without the source.
    pub fn rest(&mut self) {
        self.earn(ALLOWANCE);
        self.resting = self.resting.saturating_sub(1);
    }

    /// Notes that reading `count` tokens together takes `steps` times as long as reading one.
    pub fn note_rows(&mut self, count: usize, steps: f32) {
        if let Some(time) = count.checked_sub(1).and_then(|further| self.rows.get_mut(further))
            && steps.is_finite()
        {
            *time = steps.max(1.0);
        }
    }

    /// Notes what a draft costs, in steps.
    pub fn note_cost(&mut self, cost: f32) {
        self.cost = cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_right_drafts_more_and_one_that_is_wrong_rests() {
        let mut good = Pace::new(0.0);
        let first = good.promise(MAX_DRAFTS, 0).drafts;
        assert!(first >= 1);
        for _ in 0..20 {
            let drafts = good.promise(MAX_DRAFTS, 0).drafts;
            good.note(drafts, drafts, 0);
        }
        assert!(good.promise(MAX_DRAFTS, 0).drafts > first && !good.is_resting());
        let mut bad = Pace::new(0.0);
        let mut rounds = 0;
        for round in 0..4096 {
            let promise = bad.promise(MAX_DRAFTS, 0);
            if promise.drafts > 0 {
                rounds += 1;
                assert!(round < 16 || promise.drafts == 1, "round {round} drafts {}", promise.drafts);
                bad.note(promise.drafts, 0, 0);
            } else {
                bad.rest();
            }
        }
        assert!(rounds < 96, "{rounds} rounds of 4096 with drafts that are always wrong");
    }

    #[test]
    fn a_costly_source_needs_to_be_right_more_often() {
        let (mut cheap, mut costly) = (Pace::new(0.0), Pace::new(0.6));
        for _ in 0..200 {
            cheap.note(2, 1, 0);
            costly.note(2, 1, 0);
        }
        assert!(cheap.promise(8, 0).gain > 1.15);
        assert!(costly.is_resting() || costly.promise(8, 0).gain <= 1.0);
    }

    #[test]
    fn measured_times_limit_the_drafts() {
        let mut pace = Pace::new(0.0);
        for _ in 0..50 {
            pace.note(4, 3, 0);
        }
        let free = pace.promise(8, 0).drafts;
        for count in 2..=9 {
            pace.note_rows(count, count as f32);
        }
        assert!(free > 1);
        assert_eq!(
            pace.promise(8, 0),
            Promise { drafts: 1, gain: 1.0 },
            "nothing is gained where every row costs a step"
        );
    }

    #[test]
    fn a_costly_source_that_is_wrong_takes_a_fiftieth_of_the_time() {
        for (cost, behind) in [(0.05, 40), (0.1, 60), (0.02, 0)] {
            let mut pace = Pace::new(cost);
            let (mut read, mut lost) = (0, 0.0);
            for round in 0..2000 {
                let unread = behind + round - read;
                let promise = pace.promise(MAX_DRAFTS, unread);
                if promise.drafts > 0 {
                    lost += pace.loss(promise.drafts, unread);
                    read = behind + round;
                    pace.note(promise.drafts, 0, unread);
                } else {
                    pace.rest();
                }
                assert!(lost <= ALLOWANCE * (round + 1) as f32, "{lost} steps lost in {round} rounds");
            }
            assert!(lost > 0.0, "it was never tried");
        }
        // What it wins it may lose again; one that is right is soon asked for many drafts.
        let mut good = Pace::new(0.05);
        let mut tokens = 0;
        for _ in 0..100 {
            let drafts = good.promise(MAX_DRAFTS, 0).drafts;
            match drafts {
                0 => good.rest(),
                _ => good.note(drafts, drafts, 0),
            }
            tokens += 1 + drafts;
        }
        assert!(tokens > 600, "{tokens} tokens in 100 rounds");
    }
}
