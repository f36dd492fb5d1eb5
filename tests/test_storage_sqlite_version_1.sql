-- A ledger of version 1, as that version wrote it.
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE hourly (
        hour INTEGER NOT NULL,
        user TEXT NOT NULL,
        credential TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        requests INTEGER NOT NULL,
        counted INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        unmetered INTEGER NOT NULL,
        unpriced INTEGER NOT NULL,
        input INTEGER NOT NULL,
        cache_read INTEGER NOT NULL,
        cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL,
        output INTEGER NOT NULL,
        cost INTEGER NOT NULL,
        bytes_in INTEGER NOT NULL,
        bytes_out INTEGER NOT NULL,
        PRIMARY KEY (hour, user, credential, provider, model)
    ) WITHOUT ROWID
    ;
INSERT INTO "hourly" VALUES(498707,'alice','claude:login','claude','claude-sonnet-5',1,1,0,0,0,100,2000,30,4,50,1500,1000,20000);
INSERT INTO "hourly" VALUES(498707,'bob','claude:login','claude','claude-sonnet-5',1,1,0,0,1,100,2000,30,4,50,0,1000,20000);
CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        ended_at REAL NOT NULL CHECK (ended_at BETWEEN 0 AND 253402300799),
        request_id TEXT NOT NULL,
        user TEXT NOT NULL,
        credential TEXT NOT NULL,
        provider TEXT NOT NULL,
        path TEXT NOT NULL,
        model TEXT NOT NULL,
        status INTEGER NOT NULL,
        metering TEXT NOT NULL,
        input INTEGER NOT NULL,
        cache_read INTEGER NOT NULL,
        cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL,
        output INTEGER NOT NULL,
        cost INTEGER,
        bytes_in INTEGER NOT NULL,
        bytes_out INTEGER NOT NULL,
        head_ms REAL,
        total_ms REAL NOT NULL,
        CHECK (input | cache_read | cache_write_5m | cache_write_1h | output | coalesce(cost, 0)
            | bytes_in | bytes_out BETWEEN 0 AND 18014398509481983),
        CHECK (length(request_id) + length(path) + length(model) <= 768)
    );
INSERT INTO "requests" VALUES(1,1795348740.0,'amx_aaaaaaaaaaaaaaaaaaaaaaaaaa','alice','claude:login','claude','/claude/v1/messages','claude-sonnet-5',200,'whole',100,2000,30,4,50,1500,1000,20000,400.0,9000.0);
INSERT INTO "requests" VALUES(2,1795348740.0,'amx_aaaaaaaaaaaaaaaaaaaaaaaaaa','bob','claude:login','claude','/claude/v1/messages','claude-sonnet-5',200,'whole',100,2000,30,4,50,NULL,1000,20000,400.0,9000.0);
CREATE INDEX requests_by_end ON requests (ended_at);
CREATE INDEX hourly_by_user ON hourly (user, hour);
PRAGMA user_version = 1;
PRAGMA application_id = 1634291064;
