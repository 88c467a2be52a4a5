-- The shared database of the old shop, as the old programs expect it. It is given, not designed: names are short, money
-- is whole cents, flags are 0 and 1, some times are text on the shop's wall clock and some are UTC, and most of what
-- ties the tables together is only in the programs' heads. May be run again; it then changes nothing.

CREATE TABLE IF NOT EXISTS users (
    usr_id      varchar(40)  NOT NULL,
    login_email varchar(255) NOT NULL,
    pwd_hash    varchar(255),
    first_nm    varchar(100),
    last_nm     varchar(100),
    phone_no    varchar(40),
    addr_line   varchar(200),
    city        varchar(100),
    country     varchar(100),
    role_cd     char(1)      NOT NULL DEFAULT 'U',
    is_active   smallint     NOT NULL DEFAULT 1,
    newsletter  smallint     NOT NULL DEFAULT 0,
    credit_cents integer     NOT NULL DEFAULT 0,
    reg_date    varchar(19)  NOT NULL,
    last_upd    varchar(19),
    CONSTRAINT users_pkey PRIMARY KEY (usr_id),
    CONSTRAINT users_login_email_key UNIQUE (login_email)
);
CREATE INDEX IF NOT EXISTS users_name_idx ON users (last_nm, first_nm);

COMMENT ON TABLE users IS 'customers and staff';
COMMENT ON COLUMN users.login_email IS 'as typed at registration; the old programs compare it letter by letter';
COMMENT ON COLUMN users.role_cd IS 'U user, A admin';
COMMENT ON COLUMN users.credit_cents IS 'goodwill credit, kept by the accounts program';
COMMENT ON COLUMN users.reg_date IS 'wall clock Europe/London, YYYY-MM-DD HH24:MI:SS';
COMMENT ON COLUMN users.last_upd IS 'wall clock Europe/London, YYYY-MM-DD HH24:MI:SS; not every program sets it';

CREATE TABLE IF NOT EXISTS cat (
    cat_no   serial       NOT NULL,
    cat_path varchar(300) NOT NULL,
    CONSTRAINT cat_pkey PRIMARY KEY (cat_no),
    CONSTRAINT cat_cat_path_key UNIQUE (cat_path)
);

COMMENT ON TABLE cat IS 'every node of the tree has a row; the parent of Home/Kitchen/Mugs is the row Home/Kitchen';

CREATE TABLE IF NOT EXISTS prod (
    prod_no     serial      NOT NULL,
    stock_code  varchar(20) NOT NULL,
    descr       varchar(200),
    price_cents integer     NOT NULL,
    cat_no      integer,
    qty_on_hand integer     NOT NULL DEFAULT 0,
    is_disc     smallint    NOT NULL DEFAULT 0,
    created     timestamp   NOT NULL,
    chg         timestamp,
    CONSTRAINT prod_pkey PRIMARY KEY (prod_no),
    CONSTRAINT prod_stock_code_key UNIQUE (stock_code),
    CONSTRAINT prod_cat_no_fkey FOREIGN KEY (cat_no) REFERENCES cat (cat_no)
);
CREATE INDEX IF NOT EXISTS prod_cat_no_idx ON prod (cat_no);

COMMENT ON COLUMN prod.stock_code IS 'letter case counts: 85123A and 85123a are two products';
COMMENT ON COLUMN prod.is_disc IS '1 = discontinued';
COMMENT ON COLUMN prod.created IS 'UTC';
COMMENT ON COLUMN prod.chg IS 'UTC; not every program sets it';

CREATE TABLE IF NOT EXISTS carts (
    cart_no serial      NOT NULL,
    cust    varchar(40),
    state   char(1)     NOT NULL DEFAULT 'O',
    ext_ref varchar(20),
    opened  varchar(19) NOT NULL,
    chg     timestamp,
    CONSTRAINT carts_pkey PRIMARY KEY (cart_no)
);
CREATE UNIQUE INDEX IF NOT EXISTS carts_open_cust_key ON carts (cust) WHERE state = 'O';
CREATE INDEX IF NOT EXISTS carts_cust_idx ON carts (cust);
CREATE INDEX IF NOT EXISTS carts_ext_ref_idx ON carts (ext_ref);

COMMENT ON COLUMN carts.cust IS 'users.usr_id by habit, not by constraint; NULL: sold over the counter';
COMMENT ON COLUMN carts.state IS 'O open, C closed (bought), X cancelled or returned';
COMMENT ON COLUMN carts.ext_ref IS 'invoice number';
COMMENT ON COLUMN carts.opened IS 'wall clock Europe/London, YYYY-MM-DD HH24:MI:SS';
COMMENT ON COLUMN carts.chg IS 'UTC; not every program sets it';

CREATE TABLE IF NOT EXISTS cart_lines (
    line_no    serial    NOT NULL,
    cart_no    integer   NOT NULL,
    prod_no    integer   NOT NULL,
    qty        integer   NOT NULL,
    unit_cents integer   NOT NULL,
    added      timestamp NOT NULL,
    CONSTRAINT cart_lines_pkey PRIMARY KEY (line_no),
    CONSTRAINT cart_lines_cart_no_fkey FOREIGN KEY (cart_no) REFERENCES carts (cart_no) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS cart_lines_cart_no_idx ON cart_lines (cart_no);

COMMENT ON COLUMN cart_lines.prod_no IS 'prod.prod_no by habit, not by constraint: products have been deleted';
COMMENT ON COLUMN cart_lines.qty IS 'below zero on returns and corrections';
COMMENT ON COLUMN cart_lines.unit_cents IS 'price at the time; 0 for samples, below zero for corrections';
COMMENT ON COLUMN cart_lines.added IS 'UTC';

CREATE TABLE IF NOT EXISTS wish (
    wish_no serial      NOT NULL,
    cust    varchar(40) NOT NULL,
    prod_no integer     NOT NULL,
    added   timestamp   NOT NULL,
    CONSTRAINT wish_pkey PRIMARY KEY (wish_no),
    CONSTRAINT wish_cust_prod_no_key UNIQUE (cust, prod_no)
);

COMMENT ON COLUMN wish.added IS 'UTC';

CREATE TABLE IF NOT EXISTS ord (
    ord_no      serial      NOT NULL,
    cust        varchar(40) NOT NULL,
    cart_no     integer     NOT NULL,
    state       char(1)     NOT NULL DEFAULT 'P',
    total_cents integer     NOT NULL,
    why         varchar(200),
    placed      timestamp   NOT NULL,
    chg         timestamp,
    CONSTRAINT ord_pkey PRIMARY KEY (ord_no)
);
CREATE UNIQUE INDEX IF NOT EXISTS ord_cart_no_key ON ord (cart_no) WHERE state <> 'X';
CREATE INDEX IF NOT EXISTS ord_cust_idx ON ord (cust);

COMMENT ON COLUMN ord.state IS 'P placed, C confirmed, B being taken back, X cancelled';
COMMENT ON COLUMN ord.placed IS 'UTC';
COMMENT ON COLUMN ord.chg IS 'UTC; not every program sets it';

CREATE TABLE IF NOT EXISTS ord_lines (
    line_no    serial  NOT NULL,
    ord_no     integer NOT NULL,
    prod_no    integer NOT NULL,
    qty        integer NOT NULL,
    unit_cents integer NOT NULL,
    CONSTRAINT ord_lines_pkey PRIMARY KEY (line_no),
    CONSTRAINT ord_lines_ord_no_fkey FOREIGN KEY (ord_no) REFERENCES ord (ord_no) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS ord_lines_ord_no_idx ON ord_lines (ord_no);

COMMENT ON COLUMN ord_lines.prod_no IS 'prod.prod_no by habit, not by constraint';
