//! `steelyard up --role rack`, or `maas-rack`: a rack whose region is elsewhere. It starts and serves
//! without its region as well, with what an earlier run kept.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use metal::Timestamp;
use rack::Rack;

use crate::data::Data;
use crate::enrolment::Registered;
use crate::out;
use crate::running::{self, Running};
use crate::up::{
    INTERRUPTED, Signals, TELL, UpArgs, plan_rack, print_services, services, start_rack,
};

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When the rack was never registered, or cannot be started.
pub async fn serve(args: UpArgs) -> anyhow::Result<ExitCode> {
    let data = args.data.resolve()?;
    data.create()?;
    let _lock = data.lock()?;
    let registered = Registered::read(&data)?.with_context(|| {
        format!(
            "there is no registration in {}: have the region make a secret (rack-secret), then register-rack --url HOST --secret SECRET",
            data.rack().display()
        )
    })?;
    let mut signals = Signals::new()?;
    let client = registered.client()?;
    let rack = start_rack(plan_rack(&args, &data), Arc::new(client)).await?;
    let mut told = describe(&rack, &registered);
    running::write(&data.dir, &told)?;
    announce(&told, &registered, &data)?;
    let mut tick = tokio::time::interval(TELL);
    loop {
        tokio::select! {
            () = signals.next() => break,
            _ = tick.tick() => {
                let now = Running { started: told.started, ..describe(&rack, &registered) };
                if now != told {
                    if let Err(e) = running::write(&data.dir, &now) {
                        tracing::warn!(error = format!("{e:#}"), "other commands cannot be told of the services");
                    }
                    told = now;
                }
            }
        }
    }
    tracing::info!("stopping");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    rack.stop().await;
    running::remove(&data.dir);
    Ok(ExitCode::SUCCESS)
}

fn describe(rack: &Rack, registered: &Registered) -> Running {
    Running {
        pid: std::process::id(),
        url: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: 0,
        database: String::new(),
        region: String::new(),
        started: Timestamp::from_system(std::time::SystemTime::now()).seconds(),
        services: services(rack),
        racks: Vec::new(),
        link: None,
        regions: registered.regions.clone(),
    }
}

fn announce(running: &Running, registered: &Registered, data: &Data) -> anyhow::Result<()> {
    out::line(&format!(
        "Steelyard {} is up (rack {} of {}).",
        running.version,
        registered.rack,
        registered.regions.join(", ")
    ))?;
    out::line(&format!("  data     {}", data.dir.display()))?;
    print_services(running)
}
