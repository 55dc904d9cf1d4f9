//! Makes a failing run smaller, so that a person can read it.
//!
//! Whatever is left out changes the course of everything after it, so a smaller world seldom fails
//! in the same way with the same draws. Each candidate is therefore tried on several courses
//! (salts), and any failure counts. In turn, until none of it helps any more: fewer kinds of faults
//! (halves of them, then one by one), fewer volumes, fewer operations in flight, an earlier end.

use ogive_sim::{Fault, FaultSet, Options};

/// Courses on which a candidate is tried.
const SALTS: u64 = 4;
/// Below this much load and faults a story is short enough.
const CHAOS_US_MIN: u64 = 50_000;

/// The smallest options for which `fails` still says so. It is asked many times, and may say no
/// when it has had enough.
pub(crate) fn shrink(options: Options, fails: &mut dyn FnMut(&Options) -> bool) -> Options {
    let mut best = Options { trace: false, ..options };
    loop {
        let before = best;
        best = shorter(best, fails);
        best = fewer_faults(best, fails);
        for (volumes_max, depth_max) in [(1, u64::MAX), (1, 2), (1, 1)] {
            let volumes_max = best.volumes_max.min(volumes_max);
            let depth_max = best.depth_max.min(depth_max);
            best = try_all(best, Options { volumes_max, depth_max, ..best }, fails);
        }
        if best == before {
            return best;
        }
    }
}

/// The candidate on the first course on which it fails; else the best so far.
fn try_all(best: Options, candidate: Options, fails: &mut dyn FnMut(&Options) -> bool) -> Options {
    if candidate == best {
        return best;
    }
    let salts = std::iter::once(candidate.salt).chain(1..=SALTS);
    let mut courses = salts.map(|salt| Options { salt, ..candidate });
    courses.find(|course| fails(course)).unwrap_or(best)
}

/// Ends the load sooner, by halves and then by eighths.
fn shorter(mut best: Options, fails: &mut dyn FnMut(&Options) -> bool) -> Options {
    for (part, of) in [(1, 2), (7, 8)] {
        while best.chaos_us > CHAOS_US_MIN {
            // Whole milliseconds, as on the command line.
            let chaos_us = (best.chaos_us * part / of / 1000) * 1000;
            let next = try_all(best, Options { chaos_us, ..best }, fails);
            if next == best {
                break;
            }
            best = next;
        }
    }
    best
}

fn fewer_faults(mut best: Options, fails: &mut dyn FnMut(&Options) -> bool) -> Options {
    if !best.faults {
        return best;
    }
    let calm = Options { faults: false, without: FaultSet::default(), ..best };
    best = try_all(best, calm, fails);
    let mut size = Fault::all().count() / 2;
    while best.faults && size > 0 {
        let left: Vec<Fault> = Fault::all().filter(|&f| !best.without.contains(f)).collect();
        for part in left.chunks(size) {
            let mut without = best.without;
            part.iter().for_each(|&fault| without.insert(fault));
            best = try_all(best, Options { without, ..best }, fails);
        }
        size /= 2;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_failure_needs_is_left() {
        // Fails with kills and rot, two volumes, and at least a second of them.
        let mut runs = 0;
        let mut fails = |o: &Options| {
            runs += 1;
            let needed = [Fault::Kill, Fault::Rot];
            let there = needed.iter().all(|&f| !o.without.contains(f));
            o.faults && there && o.volumes_max >= 2 && o.chaos_us >= 1_000_000
        };
        let small = shrink(Options::seed(9), &mut fails);
        let left: Vec<Fault> = Fault::all().filter(|&f| !small.without.contains(f)).collect();
        assert_eq!(left, [Fault::Kill, Fault::Rot]);
        assert!((1_000_000..1_200_000).contains(&small.chaos_us), "{small}");
        assert_eq!((small.seed, small.volumes_max), (9, u64::MAX));
        assert!(runs < 400, "{runs}");
    }

    #[test]
    fn another_course_is_taken_where_the_first_does_not_fail() {
        let small = shrink(Options::seed(9), &mut |o| o.faults || o.salt == 3);
        assert_eq!((small.faults, small.salt, small.depth_max), (false, 3, 1));
    }

    #[test]
    fn nothing_is_taken_on_trust() {
        let options = Options::seed(9);
        assert_eq!(shrink(options, &mut |_| false), options);
    }
}
