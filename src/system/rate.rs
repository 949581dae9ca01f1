//! So many bytes a second, for all who share them.
//!
//! Bytes are paid for with time: a rate knows until when all that has gone is paid for. Whoever sends books
//! its bytes, and waits until that moment is near; so those who wait take turns, in the order in which they
//! have booked. Beside that each of them has a part of its own, which is the rate divided by their number:
//! whoever moves less than its part does not wait behind those who move more.

use std::time::{Duration, Instant};

use super::sync::Mutex;

/// What may go at once after a pause. Whoever wakes late by less loses nothing.
const BURST: Duration = Duration::from_millis(100);

/// No bulk waits for less: at 100 MB a second, waits of a fifth of this take a quarter more processor time.
const LEAST_WAIT: Duration = Duration::from_millis(50);

/// The part of one that has saved nothing is used up for so long: many short connections have no more together
/// than one.
pub const NOTHING_SAVED: Duration = BURST.saturating_add(LEAST_WAIT);

/// All who share a rate have had their turn after a tenth of a second, but for those who are so many that
/// each would move too little at once for the processor time that it takes. A pipe takes no more than a MiB.
const TURNS_A_SECOND: u64 = 10;
const SMALL_PORTION: u64 = 16 * 1024;
const LARGE_PORTION: u64 = 1024 * 1024;

/// So many bytes a second each way; the ways are those from clients and to them.
#[derive(Debug)]
pub struct Rate {
    /// `None` where there is no limit.
    bytes: Option<u64>,
    paid_until: [Mutex<Instant>; 2],
}

impl Rate {
    /// A rate of so many bytes a second, of which nothing is used.
    pub fn new(bytes: Option<u64>, now: Instant) -> Self {
        Rate { bytes, paid_until: [now, now].map(Mutex::new) }
    }

    /// Whether there is a limit at all.
    pub fn is_limit(&self) -> bool {
        self.bytes.is_some()
    }

    /// The most bytes that one of `sharers` moves at its turn.
    pub fn portion(&self, sharers: u32) -> usize {
        let Some(bytes) = self.bytes else { return usize::MAX };
        let all = (bytes / TURNS_A_SECOND).max(1);
        let portion = (all / u64::from(sharers)).clamp(all.min(SMALL_PORTION), LARGE_PORTION);
        usize::try_from(portion).unwrap_or(usize::MAX)
    }

    /// Books bytes of one of `sharers`, and says how long they have to wait: not at all unless they can, and
    /// then nothing is booked where they would have to. What does not wait and is more than may ever go at once
    /// goes after a pause. `part_until` is until when the part of this one is used up.
    pub fn book(
        &self,
        (way, bytes, can_wait): (usize, usize, bool),
        sharers: u32,
        part_until: &mut Instant,
        now: Instant,
    ) -> Option<Duration> {
        let time = self.time(bytes);
        let wait = |until: Instant| until.saturating_duration_since(now + BURST);
        let goes_now = |before: Instant, after: Instant| {
            wait(after) < LEAST_WAIT || (before == now && !can_wait)
        };
        let mut paid_until = self.paid_until[way].lock();
        let (before, part_before) = ((*paid_until).max(now), (*part_until).max(now));
        let (after, part_after) = (before + time, part_before + time * sharers);
        let (turn, own) = (wait(after), wait(part_after).saturating_sub(LEAST_WAIT));
        let is_message = can_wait && (bytes as u64) < SMALL_PORTION;
        let booked = if goes_now(before, after) {
            Duration::ZERO
        } else if sharers > 1 && (goes_now(part_before, part_after) || is_message && own < turn) {
            *part_until = part_after;
            own
        } else if can_wait {
            // What it saved while it waits would let a hasty one move more than the others.
            *part_until = now + turn + BURST;
            turn
        } else {
            return None;
        };
        *paid_until = after;
        Some(booked)
    }

    /// Gives back what was booked and did not go.
    pub fn give_back(&self, way: usize, bytes: usize) {
        let mut paid_until = self.paid_until[way].lock();
        *paid_until = paid_until.checked_sub(self.time(bytes)).unwrap_or(*paid_until);
    }

    fn time(&self, bytes: usize) -> Duration {
        let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000);
        Duration::from_nanos(self.bytes.map_or(0, |rate| nanoseconds / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem;

    const UP: usize = 0;
    const DOWN: usize = 1;
    const MB: usize = 1_000_000;
    const SECOND: Duration = Duration::from_secs(1);

    /// Some who share a rate, at a time that only they make pass.
    struct Stage {
        rate: Rate,
        sharers: u32,
        begin: Instant,
    }

    /// One of them: when it is free again, its part, what it has moved, and what it waits with until then.
    #[derive(Clone, Copy)]
    struct Sharer {
        free_at: Instant,
        part_until: Instant,
        moved: usize,
        waiting: usize,
    }

    impl Stage {
        fn new(bytes: usize, sharers: u32) -> Self {
            let begin = Instant::now();
            Stage { rate: Rate::new(Some(bytes as u64), begin), sharers, begin }
        }

        fn sharer(&self) -> Sharer {
            Stage::newcomer(self.begin)
        }

        fn newcomer(now: Instant) -> Sharer {
            Sharer { free_at: now, part_until: now + NOTHING_SAVED, moved: 0, waiting: 0 }
        }

        /// Moves a portion, and says how long that has waited.
        fn send(&self, sharer: &mut Sharer, bytes: usize) -> Duration {
            let part = &mut sharer.part_until;
            let wait =
                self.rate.book((DOWN, bytes, true), self.sharers, part, sharer.free_at).unwrap();
            sharer.free_at += wait;
            sharer.moved += mem::replace(&mut sharer.waiting, bytes);
            wait
        }

        fn datagram(&self, sharer: &mut Sharer, bytes: usize) -> bool {
            let part = &mut sharer.part_until;
            let booked = self.rate.book((DOWN, bytes, false), self.sharers, part, sharer.free_at);
            sharer.moved += if booked.is_some() { bytes } else { 0 };
            booked.is_some()
        }

        /// All of them move as much as they may for so long, whoever is free first the next portion.
        fn run(&self, all: &mut [Sharer], time: Duration) {
            loop {
                let next = all.iter_mut().min_by_key(|it| it.free_at).unwrap();
                if next.free_at >= self.begin + time {
                    return;
                }
                self.send(next, self.rate.portion(self.sharers));
            }
        }
    }

    #[test]
    fn a_rate_is_held_within_a_tenth_over_five_seconds() {
        for bytes in [10_000, MB, 100 * MB, 1000 * MB] {
            for sharers in [1, 3, 40] {
                let stage = Stage::new(bytes, sharers);
                let mut all = vec![stage.sharer(); sharers as usize];
                stage.run(&mut all, 5 * SECOND);
                let moved: usize = all.iter().map(|it| it.moved).sum();
                let wanted = 5 * bytes;
                let (least, most) = (wanted - wanted / 10, wanted + wanted / 10);
                assert!((least..=most).contains(&moved), "{bytes} {sharers}: {moved}");
            }
        }
    }

    #[test]
    fn at_most_a_quarter_of_a_second_goes_at_once() {
        for sharers in [1, 10] {
            let stage = Stage::new(MB, sharers);
            let mut all = vec![stage.sharer(); sharers as usize];
            stage.run(&mut all, Duration::from_nanos(1));
            assert!(all.iter().map(|it| it.moved).sum::<usize>() <= MB / 4 + MB / 10);
        }
    }

    #[test]
    fn those_who_share_a_rate_have_fair_parts_whoever_came_first() {
        let stage = Stage::new(MB, 5);
        let mut all = vec![stage.sharer(); 5];
        all[4].free_at += 2 * SECOND;
        stage.run(&mut all, 2 * SECOND);
        for it in &mut all {
            it.moved = 0;
        }
        stage.run(&mut all, 12 * SECOND);
        for it in &all {
            assert!((1_800_000..=2_200_000).contains(&it.moved), "{}", it.moved);
        }
    }

    #[test]
    fn small_messages_below_the_part_of_one_wait_for_nothing() {
        let stage = Stage::new(MB, 2);
        let (mut bulk, mut typist) = (stage.sharer(), stage.sharer());
        let mut waits = 0;
        for second in 1..=100 {
            stage.run(std::slice::from_mut(&mut bulk), second * SECOND / 10);
            typist.free_at = typist.free_at.max(stage.begin + second * SECOND / 10);
            waits += u32::from(stage.send(&mut typist, 1000) > Duration::ZERO);
        }
        assert!(waits <= 1, "{waits}");
        assert!(bulk.moved > 9 * MB, "{}", bulk.moved);
    }

    #[test]
    fn who_comes_again_and_again_has_no_more_for_that() {
        for bytes in [1000, 10_000, 50_000] {
            let stage = Stage::new(MB, 2);
            let (mut now, mut moved) = (stage.begin, 0);
            while now < stage.begin + 5 * SECOND {
                let mut newcomer = Stage::newcomer(now);
                stage.send(&mut newcomer, bytes);
                now = newcomer.free_at + Duration::from_millis(1);
                moved += bytes;
            }
            assert!(moved <= 5 * MB + MB / 2, "{bytes}: {moved}");
        }
    }

    #[test]
    fn a_newcomers_small_message_does_not_wait_behind_bulk() {
        let stage = Stage::new(MB, 3);
        let mut bulk = [stage.sharer(), stage.sharer()];
        stage.run(&mut bulk, SECOND);
        let mut newcomer = Stage::newcomer(stage.begin + SECOND);
        let wait = stage.send(&mut newcomer, 1000);
        assert!(wait <= Duration::from_millis(3), "{wait:?}");
    }

    #[test]
    fn datagrams_above_the_rate_are_not_admitted_and_large_ones_go_after_a_pause() {
        let stage = Stage::new(100_000, 1);
        let mut flood = stage.sharer();
        for _ in 0..50_000 {
            stage.datagram(&mut flood, 1000);
            flood.free_at += Duration::from_micros(100);
        }
        assert!((450_000..=550_000).contains(&flood.moved), "{}", flood.moved);
        let mut large = Sharer { free_at: flood.free_at + SECOND, ..stage.sharer() };
        assert!(stage.datagram(&mut large, 60_000));
        large.free_at += SECOND * 2 / 5;
        assert!(!stage.datagram(&mut large, 1000), "it is in debt");
        large.free_at += SECOND / 5;
        assert!(stage.datagram(&mut large, 1000));
    }

    #[test]
    fn datagrams_have_their_part_beside_bulk() {
        let stage = Stage::new(MB, 2);
        let (mut bulk, mut flood) = (stage.sharer(), stage.sharer());
        for tick in 1..=10_000 {
            flood.free_at = stage.begin + tick * Duration::from_millis(1);
            stage.run(std::slice::from_mut(&mut bulk), tick * Duration::from_millis(1));
            stage.datagram(&mut flood, 1000);
            stage.datagram(&mut flood, 1000);
        }
        for moved in [bulk.moved, flood.moved] {
            assert!((4_000_000..=6_500_000).contains(&moved), "{} {}", bulk.moved, flood.moved);
        }
        assert!(bulk.moved + flood.moved <= 11 * MB, "{} {}", bulk.moved, flood.moved);
    }

    #[test]
    fn each_way_has_its_own_and_what_was_given_back_is_there_again() {
        let stage = Stage::new(MB, 1);
        let mut one = stage.sharer();
        assert_eq!(stage.send(&mut one, MB / 10), Duration::ZERO);
        assert_eq!(stage.send(&mut one, MB), SECOND);
        let now = stage.begin;
        let up = stage.rate.book((UP, MB / 10, true), 1, &mut one.part_until, now);
        assert_eq!(up, Some(Duration::ZERO));
        stage.rate.give_back(DOWN, MB);
        one.free_at = now;
        assert_eq!(stage.send(&mut one, MB / 5), SECOND / 5);
    }

    #[test]
    fn many_portions_are_small_and_none_is_nothing() {
        let rate = |bytes| Rate::new(Some(bytes), Instant::now());
        assert_eq!(rate(1_000_000).portion(1), 100_000);
        assert_eq!(rate(1_000_000).portion(4), 25_000);
        assert_eq!(rate(1_000_000).portion(1000), 16 * 1024);
        assert_eq!(rate(100_000).portion(1000), 10_000);
        assert_eq!(rate(1_000_000_000).portion(2), 1024 * 1024);
        assert_eq!(rate(125).portion(9), 12);
        assert_eq!(rate(1).portion(1), 1);
        assert_eq!(Rate::new(None, Instant::now()).portion(1), usize::MAX);
    }
}
