//! Who replays what: requests go to engines round robin, in order of arrival.

use super::{Error, Request};

/// One engine's share of a trace.
///
/// Each engine process reads the whole trace and keeps its own requests, so that nothing has to be
/// handed out and every run is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    engine: usize,
    engines: usize,
}

/// One request as an engine plays it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its number in the trace, from 0.
    pub index: u64,
    /// Milliseconds since the trace began.
    pub at_ms: u64,
    /// The blocks of its prompt, in order.
    pub blocks: Vec<Block>,
}

/// One block of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Names the content: the same id has the same bytes everywhere.
    pub hash_id: u64,
    /// Where in the prompt it stands, from 0.
    pub position: u32,
    /// Whether it is full; a partial last block is neither looked up nor stored.
    pub reusable: bool,
}

impl Share {
    /// The share of `engine` (from 0) among `engines`; `None` if there is no such engine.
    #[must_use]
    pub fn new(engine: usize, engines: usize) -> Option<Self> {
        (engine < engines).then_some(Self { engine, engines })
    }

    /// The shares of all engines.
    pub fn all(engines: usize) -> impl Iterator<Item = Self> {
        (0..engines).map(move |engine| Self { engine, engines })
    }

    /// Picks this share out of a trace; errors of the trace pass through.
    pub fn requests(
        self,
        trace: impl IntoIterator<Item = Result<Request, Error>>,
    ) -> impl Iterator<Item = Result<Planned, Error>> {
        trace.into_iter().enumerate().filter_map(move |(index, request)| match request {
            Err(error) => Some(Err(error)),
            Ok(request) => (index % self.engines == self.engine)
                .then(|| Ok(Planned::new(index as u64, &request))),
        })
    }
}

impl Planned {
    fn new(index: u64, request: &Request) -> Self {
        let full = request.full_blocks();
        let blocks = (0u32..)
            .zip(&request.hash_ids)
            .map(|(position, hash_id)| Block {
                hash_id: *hash_id,
                position,
                reusable: (position as usize) < full,
            })
            .collect();
        Self { index, at_ms: request.at_ms, blocks }
    }

    /// The blocks that may be looked up, loaded and stored.
    #[must_use]
    pub fn reusable(&self) -> &[Block] {
        let full = self.blocks.iter().take_while(|block| block.reusable).count();
        &self.blocks[..full]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(requests: u64) -> Vec<Result<Request, Error>> {
        (0..requests)
            .map(|n| {
                let hash_ids = vec![n, n + 1];
                Ok(Request { at_ms: n, input_tokens: 600, output_tokens: 1, hash_ids })
            })
            .collect()
    }

    #[test]
    fn every_request_has_exactly_one_engine() {
        let mut indices: Vec<u64> = Share::all(3)
            .flat_map(|share| share.requests(trace(10)).map(|planned| planned.unwrap().index))
            .collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..10).collect::<Vec<_>>());
        assert_eq!(Share::new(3, 3), None);
    }

    #[test]
    fn the_partial_block_is_kept_apart() {
        let share = Share::new(1, 2).unwrap();
        let planned: Vec<_> = share.requests(trace(4)).map(Result::unwrap).collect();
        assert_eq!(planned.len(), 2);
        assert_eq!(planned[0].blocks.len(), 2);
        assert_eq!(planned[0].reusable(), [Block { hash_id: 1, position: 0, reusable: true }]);
    }
}
