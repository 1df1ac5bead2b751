-- What is built on the five functions, and what they can do besides.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
CREATE TABLE reviews (id int PRIMARY KEY, film text, review text);
INSERT INTO reviews VALUES (1, 'Heat', 'A long, cold, beautiful chase.'), (2, 'Heat', 'Too long.'), (3, 'Alien', NULL);
-- whole numbers in a range
SELECT id, llm.score('How good is {review}?', r, low => 1, high => 5) BETWEEN 1 AND 5 AS within FROM reviews AS r ORDER BY id;
SELECT llm.score('How good is {}?', 'x', low => 7, high => 7) AS only, llm.score('How good is {}?', 'x', low => -9, high => -8) < 0 AS below,
       llm.score('How good is {}?', 'x', low => -2147483648, high => 2147483647) IS NOT NULL AS any,
       llm.score('How good is {}?', 'x', low => NULL, high => NULL) = llm.score('How good is {}?', 'x') AS none;
SELECT llm.score('How good is {}?', NULL::text, low => 3, high => 3);
SELECT llm.score('How good is {}?', 'x', low => 5, high => 1);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.score('How good is {}?', 'x', low => 1);
SELECT llm.score('How good is {}?', 'x', high => 1);
SELECT llm.score('How good is {}?', 'x', low => 1.5, high => 2.5);
SELECT llm.complete('How good is {}?', 'x', low => 1, high => 2);
-- labels with descriptions
SELECT llm.classify('What is {}?', 'x', '{good,bad}', descriptions => '{"bad": "poor"}') IN ('good', 'bad') AS some,
       llm.classify('What is {}?', 'x', descriptions => '{"only": "there is no other"}') AS all,
       llm.classify('What is {}?', 'x', descriptions => '{"only": null}') AS none,
       llm.classify('What is {}?', 'x', NULL, descriptions => '{"only": ""}') AS empty;
SELECT llm.classify('What is {}?', 'x');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.classify('What is {}?', 'x', '{}', descriptions => '{}');
SELECT llm.classify('What is {}?', 'x', '{good,bad}', descriptions => '{"ugly": "none of them"}');
SELECT llm.classify('What is {}?', 'x', descriptions => '{"": "nothing"}');
SELECT llm.classify('What is {}?', 'x', descriptions => '{"a": 1}');
SELECT llm.classify('What is {}?', 'x', descriptions => '["a"]');
SELECT llm.classify('What is {}?', 'x', '{"Good one"," good  ONE"}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.classify('What is {}?', 'x', '{a," "}');
-- several labels
SELECT id, llm.classify_many('What is {review} about?', r, '{a,b,c}') <@ '{a,b,c}' AS within FROM reviews AS r ORDER BY id;
SELECT llm.classify_many('What is {}?', 'x', descriptions => '{"a \"b\" | c": "hard to write", "{}[](),": "as well", "Ü\\n": ""}')
       <@ '{"a \"b\" | c","{}[](),","Ü\\n"}' AS within,
       llm.classify_many('What is {}?', 7, '{one}') <@ '{one}' AS value, pg_typeof(llm.classify_many('What is {}?', 7, '{one}'));
SELECT llm.classify_many('What is {}?', 'x');
SELECT llm.classify_many('What is {}?', 'x', '{a,A}');
SELECT llm.classify_many(NULL, 'x', '{a}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
-- a NULL input
SELECT llm.complete('What is {}?', NULL, on_null => 'null') IS NULL AS complete, llm.is_true('Is {}?', NULL, on_null => 'null') IS NULL AS is_true,
       llm.classify('What is {}?', NULL, '{a}', on_null => 'null') IS NULL AS classify,
       llm.classify_many('What is {}?', NULL, '{a}', on_null => 'null') IS NULL AS classify_many,
       llm.score('How is {}?', NULL, on_null => 'null') IS NULL AS score,
       llm.extract('What is {}?', NULL, '{"type": "object"}', on_null => 'null') IS NULL AS extract,
       llm.classify('What is {}?', NULL, '{a}', on_null => 'ask') AS asked, llm.classify('What is {}?', NULL, '{a}', on_null => NULL) AS default;
SELECT llm.complete('What is {}?', 'x', on_null => 'skip');
-- ready prompts
SELECT llm.sentiment('I like it.') IN ('positive', 'negative', 'neutral', 'mixed') AS sentiment,
       llm.translate('Heat', 'French') = llm.complete('Translate {} into French. Reply with the translation alone.', 'Heat', max_tokens => 1024) AS same,
       llm.translate('Heat', '{}') <> llm.translate('Heat', '{{}}') AS language, llm.redact('I am Max.') LIKE 'answer %' AS redact,
       llm.fix_grammar('I has it.') LIKE 'answer %' AS fix_grammar;
SELECT llm.sentiment(NULL) IS NULL AS sentiment, llm.translate(NULL, 'French') IS NULL AS translate, llm.redact(NULL) IS NULL AS redact,
       llm.fix_grammar(NULL) IS NULL AS fix_grammar, llm.sentiment(NULL, on_null => 'ask') IS NOT NULL AS asked;
SELECT llm.translate('Heat', NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.translate('Heat', 'French', server => 'nowhere');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.fix_grammar('reject me');
SELECT llm.fix_grammar('reject me', on_error => 'null') IS NULL;
-- embeddings
SELECT id, cardinality(llm.embed(review)) AS dimensions, pg_typeof(llm.embed(review)), llm.embed(review) = llm.embed(review) AS same
FROM reviews AS r ORDER BY id;
SELECT llm.embed('Heat', dimensions => 2) = (llm.embed('Heat'))[1:2] AS prefix, llm.embed(NULL) IS NULL AS "null", llm.embed('') IS NULL AS empty;
SELECT llm.embed('Heat', dimensions => 0);
SELECT llm.embed('Heat', request_options => '{"encoding_format": "float"}');
SELECT llm.embed('Heat', server => 'nowhere');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.embed('reject me');
SELECT llm.embed('reject me', on_error => 'null') IS NULL AS "null";
-- how sure the model is
SELECT id, llm.is_true_confidence('Is {review} praise?', r) BETWEEN 0 AND 1 AS is_true,
       llm.classify_confidence('What is {review}?', r, '{a,b,c}') BETWEEN 0 AND 1 AS classify,
       llm.score_confidence('How good is {review}?', r, low => 1, high => 5) BETWEEN 0 AND 1 AS score,
       llm.score_confidence('How good is {review}?', r) BETWEEN 0 AND 1 AS number
FROM reviews AS r ORDER BY id;
SELECT llm.classify_confidence('What is {}?', 'x', '{only}') AS only, llm.score_confidence('How is {}?', 'x', low => 3, high => 3) AS one,
       pg_typeof(llm.is_true_confidence('Is {}?', 7));
SELECT llm.is_true_confidence('Is {}?', NULL, on_null => 'null') AS is_true, llm.classify_confidence('What is {}?', NULL, '{a}', on_null => 'null') AS classify,
       llm.score_confidence('How is {}?', NULL, on_null => 'null') AS score, llm.is_true_confidence('Is {}?', 'reject me', on_error => 'null') AS failed;
SELECT llm.is_true_confidence(NULL, 'x');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.is_true_confidence('Is {}?', 'reject me');
SELECT llm.classify_confidence('What is {}?', 'x', NULL);
SELECT llm.score_confidence('How is {}?', 'x', low => 5, high => 1);
SELECT llm.is_true_confidence('Is {}?', 'x', pairs => 'listed');
SELECT llm.complete('Is {}?', 'x', confidence => true);
SELECT llm.is_true('Is {}?', 'x', confidence => NULL) = llm.is_true('Is {}?', 'x') AS same,
       llm.is_true('Is {}?', 'y', confidence => true) IS NOT NULL AS with;
-- the function underneath, with what nobody is meant to say
SELECT output IN ('yes', 'no') AS answer FROM llm._complete('Is {}?', '"x"', '{"kind": "boolean", "confidence": true}');
SELECT output::float BETWEEN 0 AND 1 AS confidence FROM llm._complete('Is {}?', '"x"', '{"kind": "boolean", "gives": "confidence"}');
SELECT output LIKE 'answer %' AS text FROM llm._complete('Is {}?', '"x"', '{"gives": "confidence", "confidence": true}');
SELECT (fault)[2] FROM llm._complete('Is {}?', '"x"', '{"kind": "boolean", "gives": "all"}');
SELECT (fault)[2] FROM llm._complete('Is {}?', '"x"', '{"kind": "boolean", "confidence": "yes"}');
-- relevances
SELECT id, llm.relevance('a long chase', review), pg_typeof(llm.relevance('a', review)) FROM reviews AS r ORDER BY id;
SELECT llm.relevance(NULL, 'a') IS NULL AS no_query, llm.relevance('a', NULL) IS NULL AS no_document, llm.relevance('', '') IS NULL AS empty;
SELECT llm.relevance('a', 'b', request_options => '{"top_n": 1}');
SELECT llm.relevance('a', 'b', server => 'nowhere');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.relevance('a', 'reject me');
SELECT llm.relevance('a', 'reject me', on_error => 'null') IS NULL AS "null";
