-- llm.cascade, llm.cascade_labels, llm.share, llm.mean: fewer questions, within a stated error. The engine is a double: its answers are digests, and it is its own small model.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
CREATE TABLE film AS SELECT i AS id, 'film ' || i AS title FROM generate_series(1, 300) AS i;
SELECT output, asked_of, error, count(*) FROM llm.cascade('TABLE film', 'Is {title} good?', proxy => 'vllm', recall_target => 0.6, precision_target => 0.6) GROUP BY 1, 2, 3 ORDER BY 1;
SELECT rows, unique_rows, proxy, server, proxy_questions, server_questions < 250 AS fewer, drawn > 0 AS drawn, proxy_rows + server_questions AS decided, no_up_to < yes_from AS parted, sure_from FROM llm.last_cascade();
SELECT output, asked_of, count(*) FROM llm.cascade_labels('TABLE film', 'What is {title}?', '{good,bad}', proxy => 'vllm', accuracy_target => 0.7) GROUP BY 1, 2 ORDER BY 1;
SELECT rows, asked < 300 AS fewer, at_most - at_least <= 0.3 AS narrow, estimate BETWEEN at_least AND at_most AS between FROM llm.share('TABLE film', 'Is {title} good?', error => 0.15);
SELECT rows, asked < 300 AS fewer, at_most - at_least <= 1.6 AS narrow FROM llm.mean('TABLE film', 'How good is {title}?', low => 1, high => 5, error => 0.8);
-- few rows, equal rows, none
SELECT row_id, input, output, asked_of, error FROM llm.cascade('SELECT title FROM film WHERE id < 4 UNION ALL SELECT NULL UNION ALL SELECT NULL', 'Is {title} good?', proxy => 'vllm') ORDER BY row_id;
SELECT proxy_questions, server_questions, drawn, proxy_rows, no_up_to, yes_from FROM llm.last_cascade();
SELECT rows, asked, estimate, at_least, at_most FROM llm.share('SELECT 1 AS a FROM generate_series(1, 9)', 'Is {a} good?');
SELECT * FROM llm.cascade('SELECT 1 AS a WHERE false', 'Is {a} good?', proxy => 'vllm');
SELECT * FROM llm.share('SELECT 1 AS a WHERE false', 'Is {a} good?');
SELECT * FROM llm.mean('SELECT 1 AS a WHERE false', 'Is {a} good?', low => 1, high => 5);
SELECT * FROM llm.last_cascade();
-- what is wrong
SELECT * FROM llm.cascade('TABLE film', 'Is {title} good?');
SELECT * FROM llm.cascade('TABLE film', 'Is {title} good?', proxy => 'none');
SELECT * FROM llm.cascade('TABLE film', 'Is {titel} good?', proxy => 'vllm');
SELECT * FROM llm.cascade('TABLE film', NULL, proxy => 'vllm');
SELECT * FROM llm.cascade('TABLE film', 'Is {title} good?', proxy => 'vllm', recall_target => 0);
SELECT * FROM llm.cascade('TABLE film', 'Is {title} good?', proxy => 'vllm', precision_target => 1.1);
SELECT * FROM llm.cascade('TABLE film', 'Is {title} good?', proxy => 'vllm', probability => 1);
SELECT * FROM llm.cascade_labels('TABLE film', 'What is {title}?', '{}', proxy => 'vllm');
SELECT * FROM llm.share('TABLE film', 'Is {title} good?', error => 'NaN');
SELECT * FROM llm.mean('TABLE film', 'How good is {title}?');
SELECT * FROM llm.mean('TABLE film', 'How good is {title}?', low => 5, high => 1);
SELECT * FROM llm.share('SELECT ''reject me'' AS a', 'Is {a} good?');
SELECT * FROM llm.share('SELECT ''reject me'' AS a', 'Is {a} good?', on_error => 'null');
SELECT * FROM llm.cascade('SELECT ''reject me'' AS a', 'Is {a} good?', proxy => 'vllm', on_error => 'null');
