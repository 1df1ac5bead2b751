DO $$
DECLARE
    known record;
BEGIN
    FOR known IN SELECT * FROM llm_registered LOOP
        BEGIN
            PERFORM llm.register_batch(known.function, known.batch, known.report);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'calls of % are not gathered any more', known.function USING DETAIL = SQLERRM;
        END;
    END LOOP;
END $$;
DROP TABLE llm_registered;
