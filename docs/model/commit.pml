/*
 * The commit and takeover protocol of package eos, for Spin. README.md beside this file says what is modelled, what is
 * not, and how to run it. Each macro NO_… takes one protection away; check.sh shows that the whole protocol holds and
 * that each of these has a counterexample.
 *
 * One partition of input and table, two instances, and the brokers, which keep transactions, group and table. A process
 * that is frozen is one that Spin does not schedule. Variables go back to 0 where their value no longer matters, and
 * epochs and generations are kept as what they are asked for, "is it still the newest": that keeps the states few.
 */

#ifndef EVENTS
#define EVENTS 2 /* records in the input */
#endif
#ifndef JOINS
#define JOINS 3 /* sessions in all */
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef EXPELS
#define EXPELS 1 /* live members that the group gives up: they are frozen, or cut off */
#endif
#ifndef LOSSES
#define LOSSES 1 /* requests or answers that get lost or come late */
#endif

#define INSTANCES 2
#define LANES 2 /* three in the code, to hide more latency */
#define NOBODY 255
#define LOG (EVENTS + 2 * JOINS)

/* Transactions, one a transactional.id: that of instance i and lane l has number i*LANES+l. */
#define NONE 0
#define OPEN 1
#define COMMITTING 2 /* EndTxn is decided and durable, markers are being written */
#define ABORTING 3

typedef Txn {
	byte state;
	bit current; /* the epoch that its instance has is the newest */
	bit lateEnd; /* an EndTxn(commit) is under way whose sender waits for it no longer */
	byte order;  /* among offsets without a marker, in which the group's coordinator wrote them; 0: it holds none */
	bit stale;   /* later offsets are committed already */
	bit records; /* it has records in the table that have no marker yet */
	byte from;   /* what it carries: the events [from, to) and the state that counts them */
	byte to;
	byte count;
	byte seq
};
Txn txn[INSTANCES * LANES];

/* The table. An entry is the records of one commit and the position record that seals them. */
#define UNDECIDED 0
#define DECIDED 1   /* to be committed, marker not yet written */
#define COMMITTED 2 /* and visible, once it lies below the last stable offset */
#define ABORTED 3

typedef Entry {
	byte state;
	byte seq;
	byte next;
	byte count;
	byte owner;
	byte txn /* 1 + the transaction whose marker it waits for */
};
Entry table[LOG];
byte hw, lso; /* high watermark, last stable offset */

/* The group: its members, whose generation is the newest, and the committed offset with its metadata (seq 0: none). */
bit member[INSTANCES], newest[INSTANCES];
byte offsetNext, offsetSeq;
byte offsetOwner = NOBODY;

/* Local state of each instance: it holds the table up to ldbNext, and last the entry ldbEntry-1. */
byte ldbNext[INSTANCES], ldbEntry[INSTANCES];

/* The processes: without a session and able to join; killed. */
bit ready[INSTANCES], killed[INSTANCES];
byte joins, kills, expels, losses;

byte done; /* ghost: the events below have outputs that are decided to be committed */

#define UNSTABLE (txn[0].order || txn[1].order || txn[2].order || txn[3].order)
#define OPENBY(i) (txn[(i) * LANES].state == OPEN || txn[(i) * LANES + 1].state == OPEN)
#define OTHER (1 - me)

#ifdef NO_GENERATION
#define INGENERATION true
#else
#define INGENERATION (member[me] && newest[me]) /* KIP-447 */
#endif
#ifdef NO_ORDER_OF_OFFSETS
#define SUPERSEDED(x) false
#else
#define SUPERSEDED(x) txn[x].stale /* the group keeps what was written last, whichever marker comes first */
#endif
#ifdef NO_FENCING
#define MAYFENCE false
#else
#define MAYFENCE (!member[OTHER] && OPENBY(OTHER))
#endif

/* The coordinator decides to commit: here an event is lost or doubled, or is not. */
inline decide(x) {
	assert(txn[x].from == done);       /* in the outputs */
	assert(txn[x].count == txn[x].to); /* in the state */
	done = txn[x].to;
	txn[x].state = COMMITTING;
	for (k : 0 .. LOG - 1) {
		if
		:: table[k].txn == x + 1 -> table[k].state = DECIDED
		:: else
		fi
	}
	k = 0
}

/* InitProducerId: ends what is open, then gives a new epoch. While markers are being written it is asked again. */
inline initProducer(x, whose) {
	do
	:: atomic { txn[x].state == OPEN -> txn[x].state = ABORTING; txn[x].current = false; txn[x].lateEnd = false }
	:: atomic { txn[x].state == NONE -> txn[x].current = whose; txn[x].lateEnd = false; break }
	od
}

inline freshProducers() {
	initProducer(me * LANES, true);
	initProducer(me * LANES + 1, true)
}

inline fenceOther() {
#ifndef NO_FENCING
	initProducer(OTHER * LANES, false);
	initProducer(OTHER * LANES + 1, false)
#else
	skip
#endif
}

/* One batch of LevelDB: values, table offset and position together. */
inline store(at) {
	assert(at + 1 >= ldbNext[me]);
	ldbNext[me] = at + 1;
	ldbEntry[me] = at + 1;
	assert(table[at].state == DECIDED || table[at].state == COMMITTED) /* local state holds committed data alone */
}

inline take(at) {
	seq = table[at].seq; pos = table[at].next; count = table[at].count; owner = table[at].owner
}

/* What becomes of a request: it is answered (0), its answer is lost (1), it is lost (2), it comes late (3). */
inline network() {
	if
	:: how = 0
	:: losses < LOSSES -> losses++; how = 1
	:: losses < LOSSES -> losses++; how = 2
	:: losses < LOSSES -> losses++; how = 3
	fi
}

inline forget() {
	seq = 0; pos = 0; count = 0; owner = NOBODY; to = 0; place = 0; lane = 0; x = 0; how = 0;
	wantSeq = 0; wantNext = 0; wantOwner = 0; endLSO = 0; endHW = 0; rd = 0
}

proctype instance(byte me) {
	byte seq, pos, count, owner; /* as of the last commit that ended well, or was read */
	byte to, place, lane, x;     /* the cut: the events [pos, to); the place of its records; its transaction */
	byte wantSeq, wantNext, wantOwner; /* the stable offsets */
	byte endLSO, endHW, rd, how;
	byte order, k;

idle: {
	atomic { forget(); ready[me] = true };
end_idle:
	do
	:: atomic { joins < JOINS && (!member[OTHER] || ready[OTHER]) -> /* all live members have ended their sessions and join */
		joins++; newest[OTHER] = false; newest[me] = true; member[me] = true; ready[me] = false; break }
	:: OPENBY(me) -> freshProducers() /* it joined and got no partition: that session begins with fresh producers too */
	od;

	/* 1. Fresh producers for all lanes: they end what an earlier session or life of this instance left open. */
#ifdef NO_FRESH_PRODUCERS
	atomic { txn[me * LANES].current = true; txn[me * LANES + 1].current = true };
#else
	freshProducers();
#endif

fetch:	/* 2. Fence the owner whom the offsets name, if he is dead. */
	if
	:: offsetOwner == OTHER && !member[OTHER] -> fenceOther()
	:: else
	fi;
	/* 3. Read the offsets once no open transaction can change them. */
	if
#ifndef NO_STABLE_OFFSETS
	:: UNSTABLE ->
		(!UNSTABLE || MAYFENCE);
		if
		:: MAYFENCE -> fenceOther() /* ListTransactions shows also an owner whom no offset names */
		:: else
		fi;
		goto fetch
	:: atomic { !UNSTABLE -> wantSeq = offsetSeq; wantNext = offsetNext; wantOwner = offsetOwner }
#else
	:: atomic { true -> wantSeq = offsetSeq; wantNext = offsetNext; wantOwner = offsetOwner }
#endif
	fi;

	/* 4. Follow the table from where local state ends, until it shows the commit that the offsets name. */
	atomic {
		endLSO = lso; endHW = hw; rd = ldbNext[me];
		if
		:: ldbEntry[me] -> take(ldbEntry[me] - 1)
		:: else
		fi
	};
	do
#ifdef NO_READ_COMMITTED
	:: atomic { rd < hw -> take(rd); store(rd); rd++ }
#else
	:: atomic { rd < lso ->
		if
		:: table[rd].state == COMMITTED -> take(rd); store(rd)
		:: else -> ldbNext[me] = rd + 1
		fi;
		rd++ }
#endif
#ifdef NO_WAIT_FOR_LATE_MARKERS
	:: rd >= endLSO -> break
#else
	:: wantSeq && seq >= wantSeq && rd >= endLSO -> break
	:: !wantSeq && (rd >= endLSO && endLSO == endHW || rd >= endHW) -> break
	:: atomic { wantSeq && seq < wantSeq && rd >= hw && hw >= endHW && lso == hw -> assert(false) } /* fail-stop: the table ends too soon */
#endif
	od;

	/* 5. Offsets and position record must agree. Where they do not, the offsets are looked at again: if they are others
	   now, somebody took over meanwhile. Nobody changes them from outside here, so a fail-stop is a fault of the protocol. */
	if
	:: !wantSeq || seq == wantSeq && pos == wantNext && owner == wantOwner
	:: else ->
#ifndef NO_SECOND_LOOK
		atomic { !UNSTABLE -> assert(wantSeq != offsetSeq || wantNext != offsetNext || wantOwner != offsetOwner) };
		goto idle
#else
		assert(false)
#endif
	fi;

	/* 6. The opening commit, which names the new owner, then commits of what was processed. */
	atomic { to = pos; wantSeq = 0; wantNext = 0; wantOwner = 0; endLSO = 0; endHW = 0; rd = 0 };
commit:
	/* Offsets first, with the generation of the group. The lane's id may still be busy with the markers of its last commit. */
	atomic {
		!(txn[me * LANES + 1 - lane].current && (txn[me * LANES + 1 - lane].state == COMMITTING || txn[me * LANES + 1 - lane].lateEnd)) ->
		lane = 1 - lane;
		x = me * LANES + lane;
		network();
		if
		:: how >= 2 -> goto idle
		:: else
		fi;
		if
		:: txn[x].current && txn[x].state <= OPEN && INGENERATION ->
			if
			:: txn[x].state == NONE -> txn[x].from = pos
			:: else /* what is still open in it from before goes along */
			fi;
			for (k : 0 .. INSTANCES * LANES - 1) {
				if
				:: txn[k].order > order -> order = txn[k].order
				:: else
				fi
			}
			txn[x].state = OPEN; txn[x].order = order + 1; order = 0; k = 0;
			txn[x].to = to; txn[x].count = count + (to - pos); txn[x].seq = seq + 1
		:: else -> goto idle
		fi;
		if
		:: how == 1 -> goto idle
		:: else
		fi
	};
	/* Then outputs, records, and the position record. */
	atomic {
		network();
		if
		:: how >= 2 -> goto idle
		:: else
		fi;
		if
		:: txn[x].current && txn[x].state == OPEN ->
			place = hw; hw++;
			table[place].seq = txn[x].seq; table[place].next = to; table[place].count = txn[x].count; table[place].owner = me;
			table[place].txn = x + 1; txn[x].records = true
		:: else -> goto idle
		fi;
		if
		:: how == 1 -> goto idle
		:: else
		fi
	};
#ifdef NO_FLUSH_AFTER_COMMIT
	atomic { store(place) };
#endif
	atomic {
		network();
#ifdef NO_WAIT_FOR_ENDTXN
		if
		:: how == 0 -> txn[x].lateEnd = true; goto answered
		:: else
		fi;
#endif
		if
		:: how == 3 -> txn[x].lateEnd = true; goto uncertain
		:: how == 2 -> goto uncertain
		:: else
		fi;
		if
		:: txn[x].current && txn[x].state == OPEN -> decide(x)
		:: else -> goto idle
		fi;
		if
		:: how == 1 -> goto uncertain
		:: else
		fi
	};
#if !defined(NO_FLUSH_AFTER_COMMIT) && !defined(NO_WAIT_FOR_ENDTXN)
	atomic { store(place) };
#endif
answered:
	atomic { seq++; count = count + (to - pos); pos = to; owner = me; place = 0; x = 0; how = 0 };
	if
	:: atomic { pos < EVENTS -> to = pos + 1; goto commit }
	:: goto idle /* a rebalance, or all is done */
	fi;

uncertain: /* Nobody knows whether that was committed. All that is in memory is given up and rebuilt. */
#ifdef NO_GIVING_UP
	atomic { count = count + (to - pos); pos = to; place = 0; how = 0 }; /* it goes on with what it has */
	if
	:: atomic { pos < EVENTS -> to = pos + 1; goto commit }
	:: else
	fi;
#endif
#ifdef NO_REBUILDING
	freshProducers(); /* rolled back in memory: the same cut once more */
	goto commit;
#endif
	goto idle
} unless { killed[me] };

	/* Dead. LevelDB writes no journal: what was not flushed to a file is gone, and its table offset with it. */
	atomic {
		forget();
		order = 0; k = 0;
		if
		:: true
		:: ldbNext[me] = 0; ldbEntry[me] = 0
		fi
	};
	if
	:: goto end_dead
	:: atomic { !member[me] -> killed[me] = false; goto idle } /* another life, once the group has given this one up */
	fi;
end_dead:
	false
}

/* The transaction coordinator, for one transaction, and the markers that it has the other brokers write. */
proctype coordinator(byte x) {
	byte i, k;
end_coordinator:
	do
	:: atomic { txn[x].order && txn[x].state >= COMMITTING -> /* the marker of the group's offsets */
		if
		:: txn[x].state == COMMITTING && !SUPERSEDED(x) ->
			assert(txn[x].to >= offsetNext && txn[x].seq > offsetSeq); /* the position never goes back */
			offsetNext = txn[x].to; offsetSeq = txn[x].seq; offsetOwner = x / LANES;
			for (k : 0 .. INSTANCES * LANES - 1) {
				txn[k].stale = txn[k].stale || txn[k].order && txn[k].order < txn[x].order
			}
			k = 0
		:: else
		fi;
		txn[x].order = 0; txn[x].stale = false
	}
	:: atomic { txn[x].records && txn[x].state >= COMMITTING -> /* the marker of the table */
		txn[x].records = false;
		for (i : 0 .. hw - 1) {
			if
			:: table[i].txn == x + 1 && txn[x].state == COMMITTING ->
				table[i].txn = 0; table[i].state = COMMITTED;
				for (k : 0 .. hw - 1) { /* nor in the table */
					assert(table[k].state != COMMITTED || k == i || (k < i) == (table[k].seq < table[i].seq) && (k > i || table[k].next <= table[i].next))
				}
			:: table[i].txn == x + 1 && txn[x].state == ABORTING ->
				table[i].txn = 0; table[i].state = ABORTED; table[i].seq = 0; table[i].next = 0; table[i].count = 0; table[i].owner = 0
			:: else
			fi
		}
		do
		:: lso < hw && table[lso].state >= COMMITTED -> lso++
		:: else -> break
		od;
		i = 0; k = 0
	}
	:: atomic { txn[x].state >= COMMITTING && !txn[x].order && !txn[x].records -> /* all are written: the next one may begin */
		txn[x].state = NONE; txn[x].from = 0; txn[x].to = 0; txn[x].count = 0; txn[x].seq = 0;
		if
		:: txn[0].state < COMMITTING && txn[1].state < COMMITTING && txn[2].state < COMMITTING && txn[3].state < COMMITTING ->
			for (k : 1 .. hw) { /* table and offsets say the same */
				if
				:: table[k - 1].state == COMMITTED && table[k - 1].seq == offsetSeq -> i = k
				:: else -> assert(table[k - 1].state != COMMITTED || table[k - 1].seq < offsetSeq)
				fi
			}
			assert(offsetSeq == 0 || i && table[i - 1].next == offsetNext && table[i - 1].count == offsetNext && table[i - 1].owner == offsetOwner);
			assert(offsetNext == done);
			i = 0; k = 0
#ifdef REACHED
			assert(!(done == EVENTS && joins == JOINS && kills == KILLS && losses == LOSSES && expels == EXPELS))
#endif
		:: else
		fi
	}
	:: atomic { txn[x].lateEnd -> /* an EndTxn that was under way arrives, or never does; an old epoch has cleared it */
		txn[x].lateEnd = false;
		if
		:: txn[x].state == OPEN -> decide(x)
#ifndef NO_WAIT_FOR_ENDTXN
		:: true
#else
		:: else
#endif
		fi
	}
#ifndef NO_TIMEOUT
	:: atomic { txn[x].state == OPEN -> txn[x].state = ABORTING; txn[x].current = false; txn[x].lateEnd = false } /* the transaction timeout */
#endif
	od
}

/* What happens to instance i from outside. */
proctype fate(byte i) {
end_fate:
	do
	:: atomic { member[i] && !ready[i] && (killed[i] || expels < EXPELS) -> /* the session timeout, of the dead and of the frozen */
		if
		:: killed[i]
		:: else -> expels++
		fi;
		member[i] = false; newest[i] = false
	}
	:: atomic { kills < KILLS && !killed[i] && !ready[i] -> kills++; killed[i] = true } /* SIGKILL */
	od
}

init {
	atomic {
		run coordinator(0);
		run coordinator(1);
		run coordinator(2);
		run coordinator(3);
		run fate(0);
		run fate(1);
		run instance(0);
		run instance(1)
	}
}
