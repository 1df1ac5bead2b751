-- llm.keep and what it makes: no worker runs, so nothing is answered.
\set QUIET on
CREATE EXTENSION :extension CASCADE;
CREATE TABLE reviews (id int PRIMARY KEY, title text NOT NULL, review text, stars int);
INSERT INTO reviews VALUES (1, 'a', 'good', 5), (2, 'b', 'bad', 1), (3, 'b', NULL, NULL);
SELECT llm.keep('reviews', 'id', 'kind', 'Is {review} a kind thing to say of {title}?', choices => '{yes,no}');
\d reviews
\d reviews_kind
\d reviews_with_kind
SELECT id, "table", "column", answers, view, waiting, answered, failed, last, trouble FROM llm.kept;
SELECT * FROM reviews_with_kind ORDER BY id;
SELECT id, noted FROM llm_keep_1_changes;

-- What changes is noted; what the prompt does not use is not.
DELETE FROM llm_keep_1_changes;
UPDATE reviews SET stars = 3;
UPDATE reviews SET review = 'fine' WHERE id = 2;
UPDATE reviews SET id = 4 WHERE id = 3;
DELETE FROM reviews WHERE id = 1;
INSERT INTO reviews VALUES (5, 'c', '') ON CONFLICT DO NOTHING;
SELECT id FROM llm_keep_1_changes ORDER BY noted;
TRUNCATE reviews;
SELECT id FROM llm_keep_1_changes ORDER BY noted DESC LIMIT 1;

-- Errors.
SELECT llm.keep(NULL, 'id', 'mood', 'Is {review} kind?');
SELECT llm.keep('reviews', NULL, 'mood', 'Is {review} kind?');
SELECT llm.keep('reviews', 'id', 'mood', NULL);
SELECT llm.keep('nowhere', 'id', 'mood', 'Is {review} kind?');
SELECT llm.keep('reviews', '', 'mood', 'Is {review} kind?');
SELECT llm.keep('reviews', 'id, id', 'mood', 'Is {review} kind?');
SELECT llm.keep('reviews', 'id', '', 'Is {review} kind?');
SELECT llm.keep('reviews', 'id', 'title', 'Is {review} kind?');
SELECT llm.keep('reviews', 'title', 'mood', 'Is {review} kind?');
SELECT llm.keep('reviews', 'stars', 'mood', 'Is {review} kind?');
SELECT llm.keep('reviews', 'id', 'mood', 'Is {revue} kind?');
SELECT llm.keep('reviews', 'id', 'mood', 'Is {review kind?');
SELECT llm.keep('reviews', 'id', 'mood', 'Is {review} kind?', type => 'mood');
SELECT llm.keep('reviews', 'id', 'mood', 'Is {review} kind?', schema => '[]');
SELECT llm.keep('reviews', 'id', 'mood', 'Is {review} kind?', at_most_every => '-1 s');
SELECT llm.keep('reviews', 'id', 'mood', 'Is {review} kind?', answers => 'reviews');
SELECT llm.keep('reviews', 'id', 'mood', 'Is {review} kind?', view => 'a.b.c');
SELECT llm.keep('reviews_with_kind', 'id', 'mood', 'Is {review} kind?');
SELECT llm.keep('reviews', 'id', 'kind', 'Is {review} kind?', type => 'boolean');
SELECT llm.unkeep(NULL);
SELECT llm.unkeep(17);
SELECT llm.unkeep('reviews', 'mood');
SELECT llm.unkeep(NULL::regclass, NULL);
SELECT count(*) FROM llm.kept;

-- And what is left.
SELECT llm.unkeep('reviews', 'kind');
\d
\d reviews
