-- One archive file: rows in the order of their segments and numbers, and the segments and their
-- manifests in its metadata.

COPY (SELECT source, line, crc, {columns} FROM {rows})
TO {path} (
    FORMAT parquet,
    COMPRESSION zstd,
    ROW_GROUP_SIZE 20480,
    USE_TMP_FILE false,
    KV_METADATA {{{format_key}: '1', {sources_key}: {sources}, {manifests_key}: {manifests}}}
)
