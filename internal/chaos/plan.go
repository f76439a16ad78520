package chaos

import (
	"math/rand/v2"
	"slices"
	"time"
)

// The kinds of faults.
const (
	kindKill           = "kill -9"
	kindForget         = "kill -9, state deleted"
	kindDamage         = "kill -9, state damaged"
	kindFreeze         = "freeze"
	kindTerm           = "SIGTERM"
	kindFreezeIn       = "freeze in a commit"
	kindKillIn         = "kill -9 in a commit"
	kindKillBack       = "kill -9, started again at once"
	kindFreezeTakeover = "freeze in a takeover"
	kindMore           = "one more processor"
	kindFewer          = "one processor fewer"
	kindRestart        = "clean restart"
	kindZombie         = "zombie commit"
	kindDiskFull       = "disk full"
	kindDiskSlow       = "disk slow"

	kindCut      = "network cut"
	kindCutLink  = "link cut"
	kindDelay    = "link delayed"
	kindHalfOpen = "link half-open"

	ofViews         = "view: " // begins the kinds of views
	kindViewKill    = ofViews + "kill -9"
	kindViewForget  = ofViews + "kill -9, state deleted"
	kindViewDamage  = ofViews + "kill -9, state damaged"
	kindViewFreeze  = ofViews + "freeze"
	kindViewRestart = ofViews + "clean restart"
	kindViewCut     = ofViews + "network cut"

	kindLeader      = "broker killed: a leader"
	kindGroup       = "broker killed: group coordinator"
	kindTransaction = "broker killed: transaction coordinator"
	kindController  = "broker killed: controller"
)

// markAlone ends the marks of restarts of the only processor: nobody else keeps the group from being empty in between, and Kafka has
// the first member of an empty group wait (group.initial.rebalance.delay.ms, 3 s by default).
const markAlone = ", the only processor"

// What follows a fault; marks of the log alone.
const (
	markRestart = "restart"
	markThaw    = "thaw"
	markBroker  = "broker back"
	markNetwork = "network back"
)

// fault is one fault as the seed has it.
type fault struct {
	kind   string
	wait   time.Duration // since the fault before it
	lasts  time.Duration // down or frozen
	choice int           // of the processor among those that may have it
	seed   uint64        // of what else is drawn
}

// kinds are what the configuration allows, in the shares in which they come.
func kinds(cfg *Config) []string {
	all := []string{kindKill, kindFreeze, kindTerm, kindKill, kindFreeze, kindForget}
	if cfg.Subject == Tidemark {
		all = append(all, kindFreezeIn, kindKillIn, kindFreezeIn, kindFreezeTakeover, kindRestart, kindKillBack, kindZombie, kindDiskFull, kindDiskSlow)
	}
	if cfg.Network {
		all = append(all, kindCut, kindCutLink, kindDelay, kindHalfOpen)
	}
	if cfg.Views > 0 {
		all = append(all, kindViewKill, kindViewFreeze, kindViewForget, kindViewRestart)
	}
	if cfg.Views > 0 && cfg.Network {
		all = append(all, kindViewCut)
	}
	if cfg.Damage {
		all = append(all, kindDamage)
	}
	if cfg.Damage && cfg.Views > 0 {
		all = append(all, kindViewDamage)
	}
	if cfg.ProcessorsMax > cfg.Processors {
		all = append(all, kindMore, kindFewer)
	}
	if cfg.Cluster != nil && len(cfg.Cluster.Nodes) > 2 {
		all = append(all, kindLeader, kindGroup, kindTransaction, kindController)
	}
	if len(cfg.Only) > 0 {
		all = slices.DeleteFunc(all, func(kind string) bool { return !slices.Contains(cfg.Only, kind) })
	}
	return all
}

// plan draws the faults. Every kind comes in turn, so that short runs have all of them.
func plan(cfg *Config) []fault {
	rng := rand.New(rand.NewPCG(cfg.Seed, 2))
	between := func(low, high time.Duration) time.Duration { return low + time.Duration(rng.Int64N(int64(high-low))) }
	var next []string
	faults := make([]fault, cfg.Faults)
	for i := range faults {
		if len(next) == 0 {
			next = kinds(cfg)
			rng.Shuffle(len(next), func(a, b int) { next[a], next[b] = next[b], next[a] })
		}
		f := fault{kind: next[0], wait: max(cfg.Apart, between(cfg.Every*4/10, cfg.Every*16/10)), choice: rng.IntN(1 << 20), seed: rng.Uint64()}
		next = next[1:]
		switch f.kind {
		case kindFreeze, kindFreezeIn, kindFreezeTakeover, kindViewFreeze:
			f.lasts = between(cfg.Session*12/10, cfg.Session*22/10)
		case kindTerm:
			f.lasts = between(0, cfg.Session)
		case kindMore, kindFewer, kindRestart, kindKillBack, kindViewRestart, kindZombie: // as long as it takes
		case kindCut, kindCutLink, kindDelay, kindHalfOpen, kindViewCut:
			f.lasts = between(cfg.Session/2, cfg.Session*22/10)
		case kindLeader, kindGroup, kindTransaction, kindController:
			f.lasts = between(5*time.Second, 20*time.Second)
		default: // before the group has noticed, or after
			f.lasts = max(between(0, cfg.Session*2), cfg.Down)
		}
		faults[i] = f
	}
	return faults
}
