//! Which requests the next step runs, and how much of each.
//! In: the queue, in the order in which they came. Out: the step. Those who generate go first, and the rest of
//! the step goes to prompts, in pieces; who got a piece goes to the back of the queue, so prompts take turns.
//! Nothing here knows the time or what a row costs.

use std::collections::VecDeque;

use super::device::Limits;
use super::request::Request;

/// What the parts of a step take together.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    rows: usize,
    numbers: usize,
    wanted: usize,
    sees: usize,
}

impl Load {
    /// With so many more tokens of a request.
    fn with(self, request: &Request, part: usize) -> Self {
        Self {
            rows: self.rows + part,
            numbers: self.numbers + request.pages.len(),
            wanted: self.wanted + request.asked_of(part).rows(),
            sees: self.sees.max(request.position() + part),
        }
    }

    fn fits(self, limits: &Limits) -> bool {
        self.rows <= limits.rows_max
            && self.numbers <= limits.numbers_max
            && self.wanted <= limits.wanted_max
            && self.rows * limits.heads * self.sees <= limits.scores_max
    }
}

/// Steps that a request lets others go before it.
const PASSED_OVER_MAX: u32 = 4;

/// A step while it is filled.
struct Filling<'a> {
    limits: &'a Limits,
    load: Load,
    step: Vec<Request>,
}

impl Filling<'_> {
    /// Takes as much of a request as fits, `rows` at most; gives it back if that is nothing.
    fn take(&mut self, mut request: Request, rows: usize) -> Option<Request> {
        let most = request.left().min(rows);
        let fits = |part: &usize| self.load.with(&request, *part).fits(self.limits);
        let part = (1..=most).rev().find(fits);
        // Alone it fits by one token: `open` has made sure of the scores.
        let part = part.or((self.step.is_empty() && most > 0).then_some(1));
        let Some(part) = part else {
            request.passed_over += 1;
            return Some(request);
        };
        self.load = self.load.with(&request, part);
        request.part = part;
        request.passed_over = 0;
        self.step.push(request);
        None
    }
}

/// Takes the next step's requests out of the queue.
///
/// A step that has rows of those who generate has [`Limits::prompt_rows`] of prompts at most, and leaves prompts
/// that wait as many. Where pages, scores or logits have no room for all, who was passed over
/// [`PASSED_OVER_MAX`] times goes before everybody else.
pub(super) fn take_step(queue: &mut VecDeque<Request>, limits: &Limits) -> Vec<Request> {
    let (late, others): (VecDeque<_>, VecDeque<_>) = queue
        .drain(..)
        .partition(|request| request.passed_over >= PASSED_OVER_MAX);
    let (prompts, single): (VecDeque<_>, VecDeque<_>) =
        others.into_iter().partition(|request| request.left() > 1);
    let mut filling = Filling {
        limits,
        load: Load::default(),
        step: Vec::with_capacity(late.len() + single.len() + prompts.len()),
    };
    for request in late {
        let room = limits.prompt_rows.min(limits.rows_max);
        let room = room.min(limits.rows_max.saturating_sub(filling.load.rows));
        if let Some(left) = filling.take(request, room) {
            queue.push_back(left);
        }
    }
    let reserved = if prompts.is_empty() {
        0
    } else {
        limits.prompt_rows
    };
    for request in single {
        let room = limits.rows_max.saturating_sub(reserved + filling.load.rows);
        if let Some(left) = filling.take(request, room) {
            queue.push_back(left);
        }
    }
    let generates = !filling.step.is_empty();
    let most = if generates {
        limits.prompt_rows
    } else {
        limits.rows_max
    };
    let before = filling.load.rows;
    for request in prompts {
        let room = most.saturating_sub(filling.load.rows - before);
        if let Some(left) = filling.take(request, room) {
            queue.push_back(left);
        }
    }
    filling.step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Asked;
    use crate::tokenizer::TokenId;

    const LIMITS: Limits = Limits {
        rows_max: 16,
        prompt_rows: 4,
        request_tokens_max: 16,
        numbers_max: 1000,
        wanted_max: 16,
        heads: 1,
        scores_max: usize::MAX,
        pages_max: 1000,
        page_bytes: 1,
        best: None,
        timed: false,
        dispatches_per_token: None,
    };

    fn request(sequence: u64, tokens: usize) -> Request {
        Request {
            number: sequence,
            sequence,
            tokens: vec![TokenId(0); tokens],
            start: 0,
            pages: vec![0],
            asked: Asked::Logits { rows: 1 },
            reopened: 0,
            cancel: crate::CancelToken::new(),
            ran: 0,
            part: 0,
            passed_over: 0,
            logits: Vec::new(),
            best: Vec::new(),
            time: None,
            wrong: None,
        }
    }

    /// Runs steps until all is done; those of one token ask again at once. Gives of each step the sequences and
    /// their tokens.
    fn steps(mut queue: VecDeque<Request>, limits: &Limits, most: usize) -> Vec<Vec<(u64, usize)>> {
        let mut steps = Vec::new();
        while steps.len() < most && queue.iter().any(|it| it.tokens.len() > 1) {
            let step = take_step(&mut queue, limits);
            steps.push(step.iter().map(|it| (it.sequence, it.part)).collect());
            for mut request in step {
                request.ran += request.part;
                if request.tokens.len() == 1 {
                    request.ran = 0;
                }
                if request.left() > 0 {
                    queue.push_back(request);
                }
            }
        }
        steps
    }

    #[test]
    fn a_prompt_that_has_no_room_beside_others_gets_its_turn() {
        // Scores for one row that sees 40 positions: the long generating one takes them all.
        let limits = Limits {
            scores_max: 41,
            ..LIMITS
        };
        let mut long = request(1, 1);
        long.start = 40;
        let found = steps(VecDeque::from([long, request(2, 3)]), &limits, 100);
        let of_prompt = found
            .iter()
            .flatten()
            .filter(|(sequence, _)| *sequence == 2);
        assert_eq!(
            of_prompt.map(|(_, part)| part).sum::<usize>(),
            3,
            "{found:?}"
        );
        assert!(found.len() <= 8, "{found:?}");
    }

    #[test]
    fn who_generates_gets_a_token_every_step_while_prompts_take_turns() {
        let queue = VecDeque::from([request(1, 10), request(2, 1), request(3, 6), request(4, 1)]);
        let found = steps(queue, &LIMITS, 100);
        let wanted: [&[(u64, usize)]; 4] = [
            &[(2, 1), (4, 1), (1, 4)],
            &[(2, 1), (4, 1), (3, 4)],
            &[(2, 1), (4, 1), (1, 4)],
            &[(2, 1), (4, 1), (3, 2), (1, 2)],
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn prompts_alone_fill_the_step() {
        let queue = VecDeque::from([request(1, 10), request(2, 10), request(3, 10)]);
        let found = steps(queue, &LIMITS, 100);
        let wanted: [&[(u64, usize)]; 2] = [&[(1, 10), (2, 6)], &[(3, 10), (2, 4)]];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_crowd_that_generates_leaves_a_piece_to_a_prompt() {
        let mut queue: VecDeque<_> = (1..=20).map(|sequence| request(sequence, 1)).collect();
        queue.push_back(request(21, 8));
        let found = steps(queue, &LIMITS, 100);
        assert_eq!(found.len(), 2);
        let mut tokens = [0; 21];
        for step in &found {
            assert_eq!((step.len(), step[12]), (13, (21, 4)), "{step:?}");
            for (sequence, part) in step {
                tokens[usize::try_from(*sequence).unwrap() - 1] += part;
            }
        }
        // 24 turns of 20 who generate: nobody is two behind another.
        let turns = &tokens[..20];
        assert!(
            turns.iter().max().unwrap() - turns.iter().min().unwrap() <= 1,
            "{turns:?}"
        );
    }

    #[test]
    fn a_step_keeps_what_the_device_can_hold() {
        // Scores of 3 rows that see 10 positions, of 2 that see 12, and so on.
        let scores = Limits {
            scores_max: 30,
            ..LIMITS
        };
        let found = steps(VecDeque::from([request(1, 12)]), &scores, 100);
        let parts: Vec<_> = found.iter().map(|step| step[0].1).collect();
        assert_eq!(parts, [5, 3, 2, 2]);
        // Logits of 2 rows at a time, of the last 5 of 9.
        let mut scored = request(1, 9);
        scored.asked = Asked::Logits { rows: 5 };
        let wanted = Limits {
            wanted_max: 2,
            ..LIMITS
        };
        let found = steps(VecDeque::from([scored]), &wanted, 100);
        let parts: Vec<_> = found.iter().map(|step| step[0].1).collect();
        assert_eq!(parts, [6, 2, 1]);
        // Who alone is too much is taken by itself, token by token.
        let none = Limits {
            scores_max: 0,
            ..LIMITS
        };
        let queue = VecDeque::from([request(1, 3), request(2, 3)]);
        assert_eq!(steps(queue, &none, 2), [[(1, 1)], [(2, 1)]]);
    }

    #[test]
    fn logits_of_pieces_lie_one_after_the_other() {
        let mut request = request(1, 9);
        request.asked = Asked::Logits { rows: 5 };
        request.logits = vec![0.0; 5 * 2];
        let mut row = 0.0;
        for part in [3, 2, 3, 1] {
            request.part = part;
            for logits in request.logits_mut(2).chunks_exact_mut(2) {
                row += 1.0;
                logits.fill(row);
            }
            request.ran += part;
        }
        let wanted = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0];
        assert_eq!(request.logits, wanted);
    }
}
