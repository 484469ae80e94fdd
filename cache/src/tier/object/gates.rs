//! Whether the service works at all, and what it lets this node do, as its answers show.

use std::time::Duration;

use super::breaker::{Breaker, BreakerOptions};
use super::fault::{Fault, Kind};

/// What a request needs the right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    List,
    Write,
    Delete,
}

impl Right {
    pub(super) const ALL: [Self; 4] = [Self::Read, Self::List, Self::Write, Self::Delete];
    /// An object that may not be read is no service that cannot be.
    const READS: u32 = 3;

    /// What is told of who has it not.
    pub(super) const fn lost(self) -> &'static str {
        match self {
            Self::Read => "reading does not work",
            Self::List => "listing does not work, so nothing new of other nodes is known",
            Self::Write => "writing does not work",
            Self::Delete => "deleting does not work, so what is over stays",
        }
    }

    /// Whether a fault says that it is not there: other requests of the kind will not fare better.
    fn is_lost(self, fault: &Fault) -> bool {
        match fault.kind {
            Kind::Passing | Kind::Missing => false,
            Kind::NoBucket | Kind::Credentials | Kind::Denied | Kind::NoRoom => true,
            // A range or an object that cannot be had.
            Kind::Lasting => self != Self::Read,
        }
    }
}

/// What became known with the end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The service does not work.
    Down,
    /// It does again.
    Up,
    /// The right is not there.
    Lost,
    /// It is again.
    Back,
}

/// A breaker for the service, and one for each right.
#[derive(Debug)]
pub(super) struct Gates {
    options: BreakerOptions,
    service: Breaker,
    rights: [Breaker; 4],
}

impl Gates {
    pub(super) fn new(options: BreakerOptions) -> Self {
        let rights = Right::ALL.map(|right| {
            let failures = if right == Right::Read { Right::READS } else { 1 };
            Breaker::new(BreakerOptions { failures, over: Duration::ZERO, ..options })
        });
        Self { options, service: Breaker::new(options), rights }
    }

    /// Forgets what was learned.
    pub(super) fn start_over(&mut self) {
        *self = Self::new(self.options);
    }

    /// Why nothing is asked, if so.
    pub(super) fn broken(&self) -> Option<String> {
        let broken = self.service.open().map(str::to_owned);
        broken.or_else(|| self.refused(Right::Read))
    }

    /// Why a right is not there, if so.
    pub(super) fn refused(&self, right: Right) -> Option<String> {
        let why = self.rights[right as usize].open()?;
        Some(format!("{}: {why}", right.lost()))
    }

    /// A request for which a right was needed has ended.
    pub(super) fn heard(
        &mut self,
        right: Right,
        fault: Option<&Fault>,
        now: Duration,
    ) -> Option<News> {
        let gate = &mut self.rights[right as usize];
        if let Some(fault) = fault.filter(|fault| !fault.is_an_answer()) {
            gate.tried(now);
            return self.service.failed(now, &fault.text).then_some(News::Down);
        }
        let up = self.service.worked().then_some(News::Up);
        let news = match fault {
            Some(fault) if right.is_lost(fault) => {
                gate.failed(now, &fault.text).then_some(News::Lost)
            }
            Some(fault) if fault.kind != Kind::Missing => {
                gate.tried(now);
                None
            }
            _ => gate.worked().then_some(News::Back),
        };
        news.or(up)
    }

    /// Whether it is time to see if the service works again.
    pub(super) fn may_try(&mut self, now: Duration) -> bool {
        self.service.may_try(now)
    }

    /// Rights that it is time to try again.
    pub(super) fn may_try_rights(&mut self, now: Duration) -> Vec<Right> {
        if self.service.open().is_some() {
            return Vec::new();
        }
        let due = Right::ALL.into_iter().filter(|right| self.rights[*right as usize].may_try(now));
        due.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates() -> Gates {
        let second = Duration::from_secs(1);
        Gates::new(BreakerOptions {
            failures: 2,
            over: Duration::ZERO,
            pause: second,
            pause_max: second,
        })
    }

    #[test]
    fn who_is_refused_is_told_until_it_works() {
        let mut gates = gates();
        let denied = Fault::new(Kind::Denied, "access is denied");
        let now = Duration::ZERO;
        assert_eq!(gates.heard(Right::Write, Some(&denied), now), Some(News::Lost));
        let why = gates.refused(Right::Write).unwrap();
        assert_eq!(why, "writing does not work: access is denied");
        assert_eq!((gates.broken(), gates.refused(Right::List)), (None, None));
        assert_eq!(gates.may_try_rights(now), []);
        let now = Duration::from_secs(1);
        assert_eq!(gates.may_try_rights(now), [Right::Write]);
        // Nobody answers: that says nothing of rights, and it is tried again.
        let silence = Fault::silence(now);
        assert_eq!(gates.heard(Right::Write, Some(&silence), now), None);
        let now = Duration::from_secs(2);
        assert_eq!(gates.may_try_rights(now), [Right::Write]);
        assert_eq!(gates.heard(Right::Write, None, now), Some(News::Back));
        assert_eq!(gates.refused(Right::Write), None);
    }

    #[test]
    fn one_object_that_may_not_be_read_breaks_nothing() {
        let mut gates = gates();
        let denied = Fault::new(Kind::Denied, "access is denied");
        let missing = Fault::new(Kind::Missing, "there is no such object");
        let mut read = |fault: Option<&Fault>| gates.heard(Right::Read, fault, Duration::ZERO);
        for _ in 0..2 {
            assert_eq!((read(Some(&denied)), read(Some(&denied))), (None, None));
            assert_eq!(read(Some(&missing)), None);
        }
        let lasting = Fault::new(Kind::Lasting, "no such range");
        assert_eq!([0; 3].map(|_| read(Some(&lasting))), [None; 3]);
        assert_eq!([0; 3].map(|_| read(Some(&denied))), [None, None, Some(News::Lost)]);
        assert!(gates.broken().is_some(), "nothing is found any more");
    }
}
