//! `machines`: the servers, and everything that is done with them.

pub mod act;
pub mod allocate;
pub mod clone;
pub mod create;
pub mod demand;
pub mod deploy;
pub mod more;
pub mod power_ops;
pub mod read;
pub mod test;
pub mod update;

use crate::node::family::{self, shared};
use crate::node::filter;
use crate::operation::{Kind, Method, Need, Operation, Param, Who};

const COMMENT: Param = Param::opt("comment", Kind::Text, "A note for the event log.");

const MACHINES: Operation = Operation {
    handler: "MachinesHandler",
    uri: "machines/",
    ..Operation::READ
};
const MACHINE: Operation = Operation {
    handler: "MachineHandler",
    uri: "machines/{system_id}/",
    ..Operation::READ
};
const ACT: Operation = Operation {
    method: Method::Post,
    audit: Some("NODE"),
    ..MACHINE
};

/// The switches of commissioning.
const COMMISSION_PARAMS: &[Param] = &[
    Param::opt(
        "enable_ssh",
        Kind::Bool,
        "Stay up with SSH for the user's keys afterwards.",
    ),
    Param::opt("skip_bmc_config", Kind::Bool, "Leave the BMC as it is."),
    Param::opt(
        "skip_networking",
        Kind::Bool,
        "Keep the network configuration.",
    ),
    Param::opt(
        "skip_storage",
        Kind::Bool,
        "Keep the storage configuration.",
    ),
    Param::opt(
        "commissioning_scripts",
        Kind::List,
        "Commissioning scripts by name or tag; all when left out.",
    ),
    Param::opt(
        "testing_scripts",
        Kind::List,
        "Tests by name or tag; none when 'none'.",
    ),
    Param::opt(
        "parameters",
        Kind::Text,
        "Parameters of scripts, as a JSON object.",
    ),
];

/// What a machine is made of, on creation and update.
const CREATE_PARAMS: &[Param] = &[
    Param::field(
        "architecture",
        Kind::Text,
        "Architecture, for example amd64/generic.",
    ),
    Param::opt(
        "subarchitecture",
        Kind::Text,
        "The part behind the slash, when not given with the architecture.",
    ),
    Param::opt(
        "min_hwe_kernel",
        Kind::Text,
        "The oldest kernel it may run.",
    ),
    Param::field(
        "mac_addresses",
        Kind::List,
        "MAC addresses of its network interfaces.",
    ),
    Param::opt(
        "hostname",
        Kind::Text,
        "Host name; one is made up when left out.",
    ),
    Param::opt("description", Kind::Text, "A description."),
    Param::opt("domain", Kind::Text, "Its DNS domain, by name or id."),
    Param::opt("zone", Kind::Text, "Its zone, by name."),
    Param::opt("pool", Kind::Text, "Its resource pool, by name."),
    Param::opt("power_type", Kind::Text, "Power driver: ipmi or manual."),
    Param::opt(
        "power_parameters",
        Kind::Prefix,
        "Parameters of the power driver, one by one or as JSON.",
    ),
    Param::opt(
        "power_parameters_skip_check",
        Kind::Bool,
        "Accept power parameters unchecked.",
    ),
    Param::opt(
        "commission",
        Kind::Bool,
        "Commission it at once; the default for administrators.",
    ),
    Param::opt(
        "deployed",
        Kind::Bool,
        "It runs already: create it as deployed.",
    ),
    Param::opt("is_dpu", Kind::Bool, "It is a data processing unit."),
    Param::opt(
        "enable_ssh",
        Kind::Bool,
        "Commissioning: stay up with SSH afterwards.",
    ),
    Param::opt(
        "skip_bmc_config",
        Kind::Bool,
        "Commissioning: leave the BMC as it is.",
    ),
    Param::opt(
        "skip_networking",
        Kind::Bool,
        "Commissioning: keep the network configuration.",
    ),
    Param::opt(
        "skip_storage",
        Kind::Bool,
        "Commissioning: keep the storage configuration.",
    ),
    Param::opt(
        "commissioning_scripts",
        Kind::List,
        "Commissioning scripts by name or tag.",
    ),
    Param::opt("testing_scripts", Kind::List, "Tests by name or tag."),
];

/// What `machines/` shares with the other collections.
pub const SHARED: &[Operation] = &shared("MachinesHandler", "AnonMachinesHandler", "machines/");

/// `machines/` and `machines/{system_id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List machines.",
        params: filter::FILTERS,
        run: |c| Box::pin(read::list(c)),
        ..MACHINES
    },
    Operation {
        op: Some("list_allocated"),
        title: "List the caller's allocated machines.",
        run: |c| Box::pin(read::list_allocated(c)),
        ..MACHINES
    },
    Operation {
        op: Some("power_parameters"),
        who: Who::Admin,
        title: "Power parameters of several machines.",
        params: &[Param::must("id", Kind::List, "System ids.")],
        run: |c| Box::pin(family::several_power_parameters(c)),
        ..MACHINES
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Add a machine.",
        params: CREATE_PARAMS,
        audit: Some("NODE"),
        run: |c| Box::pin(create::create(c)),
        ..MACHINES
    },
    Operation {
        handler: "AnonMachinesHandler",
        method: Method::Post,
        who: Who::Anyone,
        title: "A machine enlists itself.",
        params: CREATE_PARAMS,
        run: |c| Box::pin(create::enlist(c)),
        ..MACHINES
    },
    Operation {
        method: Method::Post,
        op: Some("allocate"),
        title: "Allocate a machine that meets the constraints.",
        params: allocate::PARAMS,
        audit: Some("NODE"),
        run: |c| Box::pin(allocate::allocate(c)),
        ..MACHINES
    },
    Operation {
        method: Method::Post,
        op: Some("accept"),
        title: "Accept enlisted machines: they are commissioned.",
        params: &[Param::field("machines", Kind::List, "System ids.")],
        audit: Some("NODE"),
        run: |c| Box::pin(act::accept(c)),
        ..MACHINES
    },
    Operation {
        method: Method::Post,
        op: Some("accept_all"),
        title: "Accept every enlisted machine.",
        audit: Some("NODE"),
        run: |c| Box::pin(act::accept_all(c)),
        ..MACHINES
    },
    Operation {
        method: Method::Post,
        op: Some("release"),
        title: "Release several machines: all of them or none.",
        params: &[Param::field("machines", Kind::List, "System ids."), COMMENT],
        audit: Some("NODE"),
        run: |c| Box::pin(act::release_several(c)),
        ..MACHINES
    },
    Operation {
        method: Method::Post,
        op: Some("clone"),
        title: "Put the network or storage configuration of a machine onto others.",
        params: clone::PARAMS,
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(clone::clone(c)),
        ..MACHINES
    },
    Operation {
        method: Method::Post,
        op: Some("add_chassis"),
        who: Who::Admin,
        title: "Add the machines of a chassis.",
        params: more::CHASSIS,
        audit: Some("NODE"),
        run: |c| Box::pin(more::add_chassis(c)),
        ..MACHINES
    },
    Operation {
        title: "Read a machine.",
        run: |c| Box::pin(read::read(c)),
        ..MACHINE
    },
    Operation {
        method: Method::Put,
        title: "Change a machine.",
        params: update::PARAMS,
        audit: Some("NODE"),
        run: |c| Box::pin(update::update(c)),
        ..MACHINE
    },
    Operation {
        method: Method::Delete,
        title: "Delete a machine.",
        params: &[Param::opt(
            "force",
            Kind::Bool,
            "Also when it hosts virtual machines.",
        )],
        success: 204,
        audit: Some("NODE"),
        run: |c| Box::pin(update::delete(c)),
        ..MACHINE
    },
    Operation {
        op: Some("details"),
        title: "What commissioning found, as BSON.",
        run: |c| Box::pin(family::details(c)),
        ..MACHINE
    },
    Operation {
        op: Some("get_curtin_config"),
        title: "What the installer of a machine is told, as YAML.",
        run: |c| Box::pin(more::curtin_config(c)),
        ..MACHINE
    },
    Operation {
        op: Some("clear_default_gateways"),
        title: "Let the default routes be chosen again.",
        run: |c| Box::pin(more::clear_default_gateways(c)),
        ..ACT
    },
    Operation {
        op: Some("get_token"),
        who: Who::Admin,
        title: "The machine's own credentials.",
        run: |c| Box::pin(read::get_token(c)),
        ..MACHINE
    },
    Operation {
        op: Some("commission"),
        title: "Commission a machine: boot it and take its inventory.",
        params: COMMISSION_PARAMS,
        run: |c| Box::pin(act::commission(c)),
        ..ACT
    },
    Operation {
        op: Some("deploy"),
        title: "Install an operating system.",
        params: deploy::PARAMS,
        run: |c| Box::pin(deploy::deploy(c)),
        ..ACT
    },
    Operation {
        op: Some("release"),
        title: "Give a machine back.",
        params: &[
            COMMENT,
            Param::opt("erase", Kind::Bool, "Erase its disks first."),
            Param::opt(
                "secure_erase",
                Kind::Bool,
                "Erase with the disk's own command where it has one.",
            ),
            Param::opt(
                "quick_erase",
                Kind::Bool,
                "Erase only the start and the end.",
            ),
            Param::opt("force", Kind::Bool, "Also when it hosts virtual machines."),
        ],
        run: |c| Box::pin(act::release(c)),
        ..ACT
    },
    Operation {
        op: Some("abort"),
        title: "Stop what the machine is doing.",
        params: &[COMMENT],
        run: |c| Box::pin(act::abort(c)),
        ..ACT
    },
    Operation {
        op: Some("test"),
        title: "Run tests; the machine comes back to where it was.",
        params: test::PARAMS,
        run: |c| Box::pin(test::test(c)),
        ..ACT
    },
    Operation {
        op: Some("override_failed_testing"),
        title: "Use the machine although tests failed.",
        params: &[COMMENT],
        run: |c| Box::pin(test::override_failed(c)),
        ..ACT
    },
    Operation {
        op: Some("rescue_mode"),
        title: "Boot a system in memory, with SSH for the user's keys.",
        run: |c| Box::pin(test::rescue(c)),
        ..ACT
    },
    Operation {
        op: Some("exit_rescue_mode"),
        title: "Go back to what the machine was before rescue mode.",
        run: |c| Box::pin(test::exit_rescue(c)),
        ..ACT
    },
    Operation {
        op: Some("mark_broken"),
        title: "Mark a machine as broken.",
        params: &[
            COMMENT,
            Param::opt(
                "error_description",
                Kind::Text,
                "The older name of comment.",
            ),
        ],
        run: |c| Box::pin(act::mark_broken(c)),
        ..ACT
    },
    Operation {
        op: Some("mark_fixed"),
        title: "Mark a broken machine as fixed.",
        params: &[COMMENT],
        run: |c| Box::pin(act::mark_fixed(c)),
        ..ACT
    },
    Operation {
        op: Some("lock"),
        title: "Protect a deployed machine from change.",
        params: &[COMMENT],
        run: |c| Box::pin(act::lock(c)),
        ..ACT
    },
    Operation {
        op: Some("unlock"),
        title: "End the protection.",
        params: &[COMMENT],
        run: |c| Box::pin(act::unlock(c)),
        ..ACT
    },
    Operation {
        op: Some("set_workload_annotations"),
        title: "Set annotations: each parameter is one; an empty value removes it.",
        params: &[Param {
            name: "key",
            kind: Kind::Prefix,
            need: Need::Optional,
            doc: "Any name.",
        }],
        run: |c| Box::pin(act::annotate(c)),
        ..ACT
    },
    Operation {
        op: Some("set_owner_data"),
        title: "The older name of set_workload_annotations.",
        run: |c| Box::pin(act::annotate(c)),
        ..ACT
    },
    Operation {
        op: Some("power_on"),
        title: "Switch the power on; deploys a machine that is allocated.",
        params: &[
            COMMENT,
            Param::opt(
                "user_data",
                Kind::Text,
                "User-data in base64, for a deployment.",
            ),
        ],
        run: |c| Box::pin(power_ops::on(c)),
        ..ACT
    },
    Operation {
        op: Some("power_off"),
        title: "Switch the power off.",
        params: &[
            COMMENT,
            Param::opt(
                "stop_mode",
                Kind::Choice(&["hard", "soft"]),
                "Whether to ask the system to shut down.",
            ),
        ],
        run: |c| Box::pin(power_ops::off(c)),
        ..ACT
    },
    Operation {
        op: Some("query_power_state"),
        title: "Ask the BMC for the power state now.",
        run: |c| Box::pin(power_ops::query(c)),
        ..MACHINE
    },
    Operation {
        op: Some("power_parameters"),
        who: Who::Admin,
        title: "The power parameters, with credentials.",
        run: |c| Box::pin(family::power_parameters(c)),
        ..MACHINE
    },
];
