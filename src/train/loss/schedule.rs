//! A weight over the steps of a run: constant, or straight lines between points.
//!
//! ```text
//! 0.5             always 0.5
//! 1@0.6,0@0.8     1 up to 60 % of the steps, falling to 0 at 80 %, 0 afterwards
//! 0@0.5,1@0.5     1 from the middle on
//! ```

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Most points.
const MOST: usize = 6;

/// A weight by the share of steps that are done.
#[derive(Clone, Copy, PartialEq)]
pub struct Schedule {
    count: usize,
    /// (share of the steps, weight), shares ascending.
    points: [(f64, f64); MOST],
}

/// A weight that is none.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "`{found}` is no weight: {fault}; a number, or WEIGHT@SHARE,… with shares of the steps from 0 to 1, such as 1@0.6,0@0.8"
)]
pub struct ScheduleError {
    /// As written.
    pub found: String,
    /// The fault.
    pub fault: &'static str,
}

impl Schedule {
    /// One weight for all steps.
    pub const fn constant(weight: f64) -> Self {
        Schedule { count: 1, points: [(0.0, weight); MOST] }
    }

    fn points(&self) -> &[(f64, f64)] {
        &self.points[..self.count]
    }

    /// The shares of the steps at which it has points.
    pub fn shares(&self) -> impl Iterator<Item = f64> + use<> {
        let Schedule { count, points } = *self;
        points.into_iter().take(count).map(|(share, _)| share)
    }

    /// Whether it is 0 throughout.
    pub fn is_zero(&self) -> bool {
        self.points().iter().all(|(_, weight)| *weight == 0.0)
    }

    /// Whether all weights are numbers of at least 0.
    pub fn is_valid(&self) -> bool {
        self.points().iter().all(|(_, weight)| weight.is_finite() && *weight >= 0.0)
    }

    /// The weight where `share` of the steps are done.
    pub fn at(&self, share: f64) -> f64 {
        let points = self.points();
        // Of two points at one share the later one holds.
        let after = points.iter().position(|point| point.0 > share).unwrap_or(points.len());
        match (after.checked_sub(1).map(|before| points[before]), points.get(after)) {
            (None, Some(first)) => first.1,
            (Some(last), None) => last.1,
            (Some((from, low)), Some((to, high))) => low + (high - low) * (share - from) / (to - from),
            (None, None) => 0.0,
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let error = |fault| ScheduleError { found: text.to_owned(), fault };
        let number = |text: &str| text.trim().parse::<f64>().map_err(|_| error("not a number"));
        if !text.contains(['@', ',']) {
            return Ok(Schedule::constant(number(text)?));
        }
        let mut schedule = Schedule { count: 0, points: [(0.0, 0.0); MOST] };
        let mut last = 0.0;
        for point in text.split(',') {
            let (weight, share) = point.split_once('@').ok_or_else(|| error("a point without @"))?;
            let share = number(share)?;
            if !(last..=1.0).contains(&share) {
                return Err(error("shares must ascend from 0 to 1"));
            }
            last = share;
            let place = schedule.points.get_mut(schedule.count).ok_or_else(|| error("more than six points"))?;
            *place = (share, number(weight)?);
            schedule.count += 1;
        }
        Ok(schedule)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.points() {
            [(share, weight)] if *share == 0.0 => write!(f, "{weight}"),
            points => {
                for (number, (share, weight)) in points.iter().enumerate() {
                    write!(f, "{}{weight}@{share}", if number == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A number, or the text.
impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.points() {
            [(share, weight)] if *share == 0.0 => serializer.serialize_f64(*weight),
            _ => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_their_points() {
        let schedule: Schedule = "1@0.6,0@0.8".parse().expect("a schedule");
        let weights = [0.0, 0.6, 0.7, 0.8, 1.0].map(|share| schedule.at(share));
        assert!(weights.iter().zip([1.0, 1.0, 0.5, 0.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{weights:?}");
        let step: Schedule = "0@0.5,1@0.5".parse().expect("a schedule");
        assert_eq!([0.49, 0.5, 0.9].map(|share| step.at(share)), [0.0, 1.0, 1.0]);
        let constant: Schedule = "0.25".parse().expect("a schedule");
        assert_eq!((constant.at(0.0), constant.at(1.0)), (0.25, 0.25));
        for schedule in [schedule, step, constant] {
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for (text, fault) in [
            ("", "not a number"),
            ("x", "not a number"),
            ("1@", "not a number"),
            ("1,0@1", "a point without @"),
            ("1@0.5,0@0.4", "shares must ascend from 0 to 1"),
            ("1@2", "shares must ascend from 0 to 1"),
            ("1@nan", "shares must ascend from 0 to 1"),
            ("1@0,1@0,1@0,1@0,1@0,1@0,1@0", "more than six points"),
        ] {
            assert_eq!(text.parse::<Schedule>().map_err(|error| error.fault), Err(fault), "{text}");
        }
        assert!(!"nan".parse::<Schedule>().expect("a number").is_valid());
    }
}
