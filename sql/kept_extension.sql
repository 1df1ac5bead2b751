-- What a user has declared is his, and pg_dump saves it, though the table is the extension's.
SELECT pg_catalog.pg_extension_config_dump('@schema@._kept', '');
SELECT pg_catalog.pg_extension_config_dump('@schema@._kept_id_seq', '');
