//! The built-in kinds: one table, from which names, types and keys are all read.
//!
//! Append only. Numbers 12 to 18 are kept for module, logon session, autorun, scheduled task,
//! container, mount and file.

use super::{Feature, FeatureSpec, Kind, KindSpec, Nature, Role, Scope, Type};

macro_rules! role {
    (key) => {
        Role::Key
    };
    () => {
        Role::Property
    };
}

macro_rules! model {
    ($($(#[$doc:meta])* $module:ident = $number:literal, $nature:ident, $scope:ident {
        $($(#[$feature_doc:meta])* $feature:ident = $feature_number:literal: $type:ident
            $(, $role:ident)?;)*
    })*) => {
        $($(#[$doc])*
        pub mod $module {
            use super::*;
            /// The number of this kind.
            pub const KIND: Kind = Kind($number);
            $($(#[$feature_doc])*
            #[allow(non_upper_case_globals, reason = "a feature is written as its name")]
            pub const $feature: Feature = Feature($feature_number);)*
            /// This kind's row of the model.
            pub const SPEC: KindSpec<'static> = KindSpec {
                kind: KIND,
                name: stringify!($module),
                nature: Nature::$nature,
                scope: Scope::$scope,
                features: &[$(FeatureSpec {
                    feature: $feature,
                    name: stringify!($feature),
                    value_type: Type::$type,
                    role: role!($($role)?),
                }),*],
            };
        })*

        /// Every built-in kind, in ascending order of number.
        pub const MODEL: &[KindSpec<'static>] = &[$($module::SPEC),*];
    };
}

model! {
    /// The computer the sensor runs on; one row.
    machine = 1, State, Machine {
        /// Host name.
        name = 3: Text, key;
        /// Operating system, as its vendor names it.
        os = 4: Text;
        /// Its version.
        os_version = 5: Text;
        /// Kernel release.
        kernel = 6: Text;
        /// Processor architecture.
        architecture = 7: Text;
        /// SHA-256 of the operating system's machine id.
        machine_id = 8: Hash;
        /// Its addresses, separated by commas.
        addresses = 9: Text;
        /// Version of the sensor.
        sensor_version = 10: Text;
        /// Logical processors.
        processors = 11: U64;
        /// Memory in bytes.
        memory_bytes = 12: U64;
        /// enabled, disabled or suspended.
        collection = 13: Text;
    }

    /// An account of the machine.
    user = 2, State, Machine {
        /// Number of the account.
        uid = 3: U64, key;
        /// Name of the account.
        name = 4: Text, key;
        /// Primary group.
        gid = 5: U64;
        /// Home folder.
        home = 6: Text;
        /// Login shell.
        shell = 7: Text;
        /// Whether a session of it is open.
        logged_in = 8: Bool;
    }

    /// A running program; ends with its exit code.
    process = 3, State, Boot {
        /// Process number.
        pid = 3: U64, key;
        /// Start time in clock ticks since boot.
        start_ticks = 4: U64, key;
        /// Its parent process.
        parent = 5: Ref;
        /// Path of the executable.
        image_path = 6: Text;
        /// Arguments, separated by spaces.
        command_line = 7: Text;
        /// Effective user number.
        uid = 8: U64;
        /// Effective user name.
        user = 9: Text;
        /// SHA-256 of the executable.
        image_hash = 10: Hash;
        /// Its working folder at start.
        working_directory = 11: Text;
        /// Container id, where it runs in one.
        container = 12: Text;
        /// When it started.
        started = 13: Time;
        /// Exit code; a signal as 128 + its number.
        exit_code = 14: I64;
        /// When it ended.
        ended = 15: Time;
        /// How long it lived.
        duration_ms = 16: U64;
        /// Processor time in user mode.
        user_time_us = 17: U64;
        /// Processor time in the kernel.
        system_time_us = 18: U64;
        /// Session number.
        session = 19: U64;
        /// Controlling terminal.
        terminal = 20: Text;
        /// Whether the executable had no name when it ran.
        image_deleted = 21: Bool;
        /// Inode of the executable.
        image_inode = 22: U64;
        /// Device of the executable.
        image_device = 23: U64;
        /// Size of the executable.
        image_bytes = 24: U64;
        /// User who logged in.
        login_uid = 25: U64;
        /// Short name, as the kernel shows it.
        name = 26: Text;
        /// Path of the parent's executable.
        parent_image_path = 27: Text;
        /// MD5 of the executable.
        image_md5 = 28: Hash;
        /// SHA-1 of the executable.
        image_sha1 = 29: Hash;
    }

    /// A file was created, changed, renamed or removed.
    file_event = 4, Event, Boot {
        /// Path of the file.
        path = 3: Text;
        /// 1 created, 2 modified, 3 removed, 4 renamed.
        action = 4: U64;
        /// Who did it.
        process = 5: Ref;
        /// User who did it.
        user = 6: Text;
        /// Size after the change.
        file_bytes = 7: U64;
        /// Permission bits after the change.
        mode = 8: U64;
        /// Inode.
        inode = 9: U64;
        /// Device.
        device = 10: U64;
        /// SHA-256 after the change.
        hash = 11: Hash;
        /// Path before a rename.
        old_path = 12: Text;
        /// Executable of who did it.
        image_path = 13: Text;
    }

    /// A connection between two sockets; ends when it closes.
    connection = 5, State, Boot {
        /// IP protocol number: 6 TCP, 17 UDP.
        protocol = 3: U64, key;
        /// Address on this machine.
        local_address = 4: Ip, key;
        /// Port on this machine.
        local_port = 5: U64, key;
        /// Address of the other side.
        remote_address = 6: Ip, key;
        /// Port of the other side.
        remote_port = 7: U64, key;
        /// When it was first seen.
        first_seen = 8: Time, key;
        /// Who owns the socket.
        process = 9: Ref;
        /// 1 outbound, 2 inbound.
        direction = 10: U64;
        /// State of the protocol.
        state = 11: Text;
        /// User who owns the socket.
        user = 12: Text;
        /// Bytes sent.
        bytes_sent = 13: U64;
        /// Bytes received.
        bytes_received = 14: U64;
        /// How long it was open.
        duration_ms = 15: U64;
        /// User number who owns the socket.
        uid = 16: U64;
        /// Executable of the owner.
        image_path = 17: Text;
    }

    /// A name was looked up.
    dns = 6, Event, Boot {
        /// The name, lower case, without the last dot.
        question = 3: Text;
        /// Record type: 1 A, 28 AAAA, ...
        question_type = 4: U64;
        /// 0 no error, 3 no such name, ...
        response_code = 5: U64;
        /// Addresses in the answer, separated by commas.
        answers = 6: Text;
        /// Who asked.
        process = 7: Ref;
        /// The resolver that answered.
        server = 8: Ip;
        /// User who asked.
        user = 9: Text;
        /// Executable of who asked.
        image_path = 10: Text;
    }

    /// A service of the operating system.
    service = 7, State, Machine {
        /// Name of the unit.
        name = 3: Text, key;
        /// active, inactive, failed, ...
        state = 4: Text;
        /// Finer state.
        sub_state = 5: Text;
        /// enabled, disabled, static, ...
        enablement = 6: Text;
        /// Where it is defined.
        unit_path = 7: Text;
        /// Its main process.
        process = 8: Ref;
        /// What it says of itself.
        description = 9: Text;
        /// User it runs as.
        user = 10: Text;
        /// What it starts.
        command_line = 11: Text;
    }

    /// The state of one part of the sensor.
    health = 8, State, Machine {
        /// Which part, such as a collector.
        component = 3: Text, key;
        /// active, degraded, missing or stopped.
        status = 4: Text;
        /// Why it is not active.
        reason = 5: Text;
        /// What mends it.
        remedy = 6: Text;
        /// What it uses on this machine.
        mechanism = 7: Text;
    }

    /// What became of a command. Urgent lane.
    command_outcome = 9, Event, Machine {
        /// Incarnation of the issuer.
        issuer = 3: U64;
        /// Number of the command.
        command_seq = 4: U64;
        /// A value of the outcome registry.
        outcome = 5: U64;
        /// What happened, for a person.
        detail = 6: Text;
        /// What was to be done.
        action = 7: Text;
    }

    /// The sensor noticed tampering or a loss. Urgent lane.
    finding = 10, Event, Machine {
        /// A value of the error registry.
        code = 3: U64;
        /// Which part noticed.
        component = 4: Text;
        /// What it noticed, for a person.
        detail = 5: Text;
        /// Facts lost, where known.
        lost = 6: U64;
    }

    /// A collector's own count, made outside the delivery path.
    collector_count = 11, Event, Machine {
        /// Which collector.
        component = 3: Text;
        /// Events read from the kernel since the sensor started.
        seen = 4: U64;
        /// Times the kernel reported an overflow.
        overflowed = 5: U64;
        /// Facts the queue refused.
        refused = 6: U64;
    }
}
