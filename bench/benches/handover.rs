//! Handing values to another thread and getting answers back: a lane with credits, beside a pair of
//! channels of the standard library.

use std::sync::mpsc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zmailer::base::credit::lane;

const VALUES: u64 = 10_000;

fn over_lane() {
    let (mut sender, mut receiver) = lane::<u64, u64>(256);
    let echo = std::thread::spawn(move || {
        let mut rest = VALUES;
        while rest > 0 {
            match receiver.receive() {
                Some(value) => {
                    receiver.give_back(value);
                    rest -= 1;
                }
                None => std::thread::yield_now(),
            }
        }
    });
    let (mut sent, mut returned) = (0, 0);
    while returned < VALUES {
        while sent < VALUES && sender.try_send(sent).is_ok() {
            sent += 1;
        }
        let before = returned;
        while sender.poll_return().is_some() {
            returned += 1;
        }
        if returned == before {
            std::thread::yield_now();
        }
    }
    echo.join().expect("the echo ends");
}

fn over_channels() {
    let (to, from) = mpsc::sync_channel::<u64>(256);
    let (back, answers) = mpsc::sync_channel::<u64>(256);
    let echo = std::thread::spawn(move || {
        for value in from {
            if back.send(value).is_err() {
                return;
            }
        }
    });
    let feed = std::thread::spawn(move || {
        for value in 0..VALUES {
            if to.send(value).is_err() {
                return;
            }
        }
    });
    assert_eq!(answers.iter().count() as u64, VALUES);
    feed.join().expect("the feed ends");
    echo.join().expect("the echo ends");
}

fn hand_over(c: &mut Criterion) {
    let mut group = c.benchmark_group("hand_over_10000");
    group.sample_size(20);
    group.throughput(Throughput::Elements(VALUES));
    group.bench_function("lane with credits", |b| b.iter(over_lane));
    group.bench_function("baseline: two channels", |b| b.iter(over_channels));
    group.finish();
}

criterion_group!(benches, hand_over);
criterion_main!(benches);
