package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgresBin finds Postgres's programs.
func postgresBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin") // Debian's place
	if err != nil || len(found) == 0 {
		return "", errors.New("no Postgres in PATH or /usr/lib/postgresql (Debian: apt-get install postgresql)")
	}
	return found[len(found)-1], nil
}

// postgresUser is whom Postgres runs as: it refuses root.
func postgresUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, fmt.Errorf("find a user for Postgres, which does not run as root: %w", err)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

// startPostgres starts a Postgres with what it needs to have its table in memory.
func startPostgres(ctx context.Context, parent string) (p *process, url string, err error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, "", err
	}
	who, err := postgresUser()
	if err != nil {
		return nil, "", err
	}
	dir := filepath.Join(parent, "postgres")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, "", err
	}
	if who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			return nil, "", err
		}
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", dir, "-U", "bench", "-A", "trust", "--no-locale", "-E", "UTF8", "-N")
	initdb.SysProcAttr, initdb.Dir = &syscall.SysProcAttr{Credential: who}, "/"
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("initdb: %w\n%s", err, out)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", err
	}
	p, err = startProcess("Postgres", who, filepath.Join(bin, "postgres"), "-D", dir, "-h", "127.0.0.1", "-p", port,
		"-c", "unix_socket_directories=", "-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB", "-c", "autovacuum=off", "-c", "jit=off")
	if err != nil {
		return nil, "", err
	}
	url = "postgres://bench@" + addr + "/postgres?sslmode=disable"
	return p, url, p.await(ctx, time.Minute, func() error {
		c, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		return c.Close(ctx)
	})
}

// fillPostgres writes the states.
func fillPostgres(ctx context.Context, url string, states []string) (err error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	if _, err := c.Exec(ctx, "CREATE TABLE states (id text PRIMARY KEY, state text NOT NULL)"); err != nil {
		return err
	}
	rows := pgx.CopyFromSlice(len(states), func(n int) ([]any, error) { return []any{idText(n), states[n]}, nil })
	if _, err := c.CopyFrom(ctx, pgx.Identifier{"states"}, []string{"id", "state"}, rows); err != nil {
		return err
	}
	_, err = c.Exec(ctx, "VACUUM (FREEZE, ANALYZE) states")
	return err
}

// postgresCaller asks over a connection of its own, by statements that are prepared once.
type postgresCaller struct {
	c      *pgx.Conn
	states []string
	keys   []string
}

func openPostgres(url string, states []string) func(context.Context, int) (*session, error) {
	return func(ctx context.Context, callers int) (*session, error) {
		var open []*pgx.Conn
		s := &session{close: func() error {
			var errs []error
			for _, c := range open {
				errs = append(errs, c.Close(ctx))
			}
			return errors.Join(errs...)
		}}
		for range callers {
			c, err := pgx.Connect(ctx, url)
			if err != nil {
				return nil, errors.Join(err, s.close())
			}
			open = append(open, c)
			_, err1 := c.Prepare(ctx, "one", "SELECT state FROM states WHERE id = $1")
			_, err2 := c.Prepare(ctx, "many", "SELECT id, state FROM states WHERE id = ANY($1)")
			if err := errors.Join(err1, err2); err != nil {
				return nil, errors.Join(err, s.close())
			}
			s.callers = append(s.callers, &postgresCaller{c, states, make([]string, batchIDs)})
		}
		return s, nil
	}
}

func (p *postgresCaller) get(ctx context.Context, id int) error {
	var got string
	if err := p.c.QueryRow(ctx, "one", idText(id)).Scan(&got); err != nil || got != p.states[id] {
		return wrong(id, got, err)
	}
	return nil
}

func (p *postgresCaller) batch(ctx context.Context, ids []int) error {
	for i, id := range ids {
		p.keys[i] = idText(id)
	}
	rows, err := p.c.Query(ctx, "many", p.keys)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := 0
	for ; rows.Next(); found++ {
		var id, got string
		if err := rows.Scan(&id, &got); err != nil {
			return err
		}
		n, err := strconv.Atoi(id[2:])
		if err != nil || !slices.Contains(ids, n) || got != p.states[n] {
			return wrong(n, got, err)
		}
	}
	if found != len(ids) {
		return wrong(ids[0], fmt.Sprintf("%d rows", found), nil)
	}
	return rows.Err()
}
