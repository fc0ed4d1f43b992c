//! Mail goes through whole shards, in good weather and bad.

use std::cell::Cell;

use spool::op::FileId;
use spool::sim::Fault;

use super::hop::Manners;
use super::world::{Plan, World};

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        shards: 1 + seed as usize % 4,
        limit: [1, 3, 50][seed as usize % 3],
        clients: 6,
        messages: 12,
        large_one_in: 0,
        memory_bytes: 1 << 20,
        manners: Manners::default(),
    }
}

/// Sends everything, with the limit of connections watched at every turn.
fn send_all(world: &mut World, limit: u32) {
    world.run("all are connected", World::all_connected);
    for client in &mut world.clients {
        client.begin();
    }
    world.run("all is delivered", |world| {
        assert!(
            world.outgoing() <= limit as usize,
            "{} connections",
            world.outgoing()
        );
        world.drained()
    });
}

/// Everything acknowledged has arrived unaltered; says how often too often.
fn check(world: &World) -> usize {
    for client in &world.clients {
        assert_eq!(client.surprises, Vec::<String>::new());
    }
    arrivals(world)
}

fn arrivals(world: &World) -> usize {
    let mut again = 0;
    for client in &world.clients {
        for (name, content) in &client.acknowledged {
            let delivered = world.hop.delivered.get(name);
            let delivered = delivered.unwrap_or_else(|| panic!("{name} is lost"));
            for copy in delivered {
                let (trace, rest) = copy.split_at(copy.len() - content.len());
                assert!(trace.starts_with(b"Received: from client.example "));
                assert_eq!(rest, content, "{name} is altered");
            }
            again += delivered.len() - 1;
        }
    }
    again
}

fn acknowledged(world: &World) -> usize {
    world
        .clients
        .iter()
        .map(|client| client.acknowledged.len())
        .sum()
}

#[test]
fn what_was_acknowledged_arrives_once() {
    for seed in 0..40 {
        let plan = plan(seed);
        let mut world = World::new(plan.clone());
        send_all(&mut world, plan.limit);
        assert_eq!(acknowledged(&world), 72, "seed {seed}");
        assert_eq!(check(&world), 0, "seed {seed}: delivered twice");
    }
}

/// Content in files, delivered by the shard that has it and by others; with memory so short that smaller
/// content goes to files as well.
#[test]
fn large_content_arrives_once() {
    for seed in 0..16 {
        let mut plan = plan(seed);
        plan.messages = 4;
        plan.large_one_in = 3;
        plan.memory_bytes = [1 << 20, 64 << 10][seed as usize / 8];
        plan.manners = Manners {
            defer: 10,
            defer_content: 10,
            ..Manners::default()
        };
        let mut world = World::new(plan.clone());
        send_all(&mut world, plan.limit);
        assert_eq!(acknowledged(&world), 24, "seed {seed}");
        assert_eq!(check(&world), 0, "seed {seed}: delivered twice");
        let shards = plan.shards;
        world.run("the files are gone", |world| {
            let is_content = |file: &FileId| matches!(file, FileId::Content(_));
            (0..shards).all(|shard| {
                world
                    .net
                    .with_disk(shard, |disk| !disk.files().any(|file| is_content(&file)))
            })
        });
    }
}

#[test]
fn a_next_hop_in_a_bad_mood_loses_nothing() {
    let mut forgotten = 0;
    for seed in 0..40 {
        let mut plan = plan(seed);
        plan.manners = Manners {
            defer: 20,
            defer_content: 10,
            reset: 2,
            forget: 3,
        };
        let mut world = World::new(plan.clone());
        send_all(&mut world, plan.limit);
        assert_eq!(acknowledged(&world), 72, "seed {seed}");
        let again = check(&world);
        forgotten += world.hop.forgotten.len();
        // A reply that is lost on the way, by a reset too, leaves the relay no choice.
        let most = world.hop.connections_made;
        assert!(
            again <= most,
            "seed {seed}: {again} repeats, {most} connections"
        );
    }
    assert!(forgotten > 10, "{forgotten}: the mood was not bad");
}

#[test]
fn a_next_hop_that_is_down_is_probed_by_one_connection_at_a_time() {
    for seed in 0..20 {
        let mut plan = plan(seed);
        // What waits is read back when its turn comes.
        plan.memory_bytes = 8 << 10;
        let mut world = World::new(plan.clone());
        let address = "198.51.100.9:25".parse().unwrap();
        world.net.unlisten(address);
        world.run("all are connected", World::all_connected);
        for client in &mut world.clients {
            client.begin();
        }
        world.run("all is accepted", World::all_answered);
        // Down for a while: after the first failures only the probe is out.
        for turn in 0..2_000 {
            world.turn();
            assert!(turn < 500 || world.outgoing() <= 1, "{}", world.outgoing());
        }
        world.net.listen(address);
        let most = Cell::new(0);
        world.run("all is delivered", |world| {
            most.set(most.get().max(world.outgoing()));
            world.drained()
        });
        assert_eq!(check(&world), 0, "seed {seed}");
        let enough = plan.limit.min(4) as usize;
        assert!(
            most.get() >= enough,
            "seed {seed}: {} connections",
            most.get()
        );
    }
}

#[test]
fn a_disk_that_fails_refuses_and_then_takes_mail_again() {
    let mut refused = 0;
    for seed in 0..20 {
        let mut plan = plan(seed);
        plan.shards = 1;
        let mut world = World::new(plan);
        world.run("all are connected", World::all_connected);
        for client in &mut world.clients {
            client.begin();
        }
        world.run("some mail is taken", |world| acknowledged(world) > 8);
        // Both attempts of a commit, and whatever else the disk is asked for meanwhile.
        world.net.with_disk(0, |disk| {
            for _ in 0..4 {
                disk.fail_next(Fault::Error { errno: 5 });
            }
        });
        world.run("all is delivered", World::drained);
        let said = world.clients.iter().flat_map(|client| &client.surprises);
        let said: Vec<&String> = said.collect();
        assert!(
            said.iter().all(|text| text.starts_with("Content: 4")),
            "seed {seed}: {said:?}"
        );
        refused += said.len();
        assert_eq!(acknowledged(&world) + said.len(), 72, "seed {seed}");
        // What was refused does not arrive either: `arrivals` finds each acknowledged one.
        assert_eq!(arrivals(&world), 0, "seed {seed}");
        assert_eq!(
            world.hop.delivered.len(),
            acknowledged(&world),
            "seed {seed}"
        );
    }
    assert!(
        refused > 10,
        "{refused} refusals: the disk did not fail where it matters"
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    let digest = |seed| {
        let plan = plan(seed);
        let mut world = World::new(plan.clone());
        send_all(&mut world, plan.limit);
        world.net.digest()
    };
    for seed in 0..4 {
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
    }
    assert_ne!(digest(1), digest(2));
}
