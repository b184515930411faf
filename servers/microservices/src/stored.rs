//! Reading all records of one table back from a store.

use lapwing_server_core::rows;
use lapwing_store::RowStore;
use serde::de::DeserializeOwned;

/// The records between two keys, each with what its key says. Blocks on the disk.
pub(crate) fn load<K, V: DeserializeOwned>(
    rows: &RowStore,
    [from, to]: [&[u8]; 2],
    key_of: impl Fn(&[u8]) -> Option<K>,
) -> Result<Vec<(K, V)>, String> {
    let entries = rows.scan(from, to).map_err(|error| error.to_string())?;
    let record = |(key, value): (Vec<u8>, Vec<u8>)| {
        let record = rows::read::<V>(&value).ok()?;
        Some((key_of(&key)?, record))
    };
    let records: Option<Vec<(K, V)>> = entries.into_iter().map(record).collect();
    records.ok_or_else(|| {
        format!(
            "a record under {:?} cannot be read: it was written by another version; start that one, \
             or restore the store from a backup",
            String::from_utf8_lossy(from)
        )
    })
}
