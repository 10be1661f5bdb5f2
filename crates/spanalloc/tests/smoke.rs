//! smoke
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#[global_allocator]
static A: spanalloc::Spanalloc = spanalloc::Spanalloc;
use std::collections::HashMap;
#[test]
fn smoke() {
    let mut m = HashMap::new();
    for i in 0..200_000u64 {
        m.insert(format!("k{i}"), vec![i as u8; (i % 700) as usize]);
    }
    for i in (0..200_000u64).step_by(3) {
        m.remove(&format!("k{i}"));
    }
    for (k, v) in &m {
        let i: u64 = k[1..].parse().unwrap();
        assert!(v.iter().all(|b| *b == i as u8));
    }
    let hs: Vec<_> = (0..4)
        .map(|t| {
            std::thread::spawn(move || {
                let mut v: Vec<Box<[u8]>> = vec![];
                for i in 0..100_000usize {
                    v.push(vec![t as u8; i % 300].into());
                    if i % 3 == 0 {
                        let n = v.len();
                        v.swap_remove((i * 7) % n);
                    }
                }
                v
            })
        })
        .collect();
    let all: Vec<_> = hs.into_iter().map(|h| h.join().unwrap()).collect();
    for (t, v) in all.iter().enumerate() {
        for b in v {
            assert!(b.iter().all(|x| *x == t as u8));
        }
    }
    let s = spanalloc::stats::snapshot();
    println!("{:?} live {} adds {}", s.pages, s.live_objects(), s.adds_up());
    drop(all);
    drop(m);
    let s = spanalloc::stats::snapshot();
    println!("{:?} live {} adds {}", s.pages, s.live_objects(), s.adds_up());
    for r in s.rows() {
        println!("{r:?}");
    }
}
