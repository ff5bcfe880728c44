package main

import (
	counts "github.com/cairn-backup/cairn/backend/meter"
	"github.com/cairn-backup/cairn/engine"
)

// trafficJSON is what an operation asked of the store, tries that failed and
// were sent again included.
type trafficJSON struct {
	Put     callsJSON `json:"put"`
	Get     callsJSON `json:"get"`
	Stat    callsJSON `json:"stat"`
	List    callsJSON `json:"list"`
	Delete  callsJSON `json:"delete"`
	Retries int64     `json:"retries"`
}

type callsJSON struct {
	Requests int64 `json:"requests"`
	Failures int64 `json:"failures"`
	Bytes    int64 `json:"bytes"`
}

func trafficOf(t engine.Traffic) trafficJSON {
	count := func(c counts.Count) callsJSON { return callsJSON(c) }
	return trafficJSON{
		Put: count(t.Put), Get: count(t.Get), Stat: count(t.Stat), List: count(t.List), Delete: count(t.Delete), Retries: t.Retries,
	}
}
