package manifest

import (
	"reflect"
	"testing"
)

// TestNodeEqual: no field may differ.
func TestNodeEqual(t *testing.T) {
	var a Node
	if b := a; !a.Equal(&b) {
		t.Error("a node does not equal itself")
	}
	n := 0
	eachField(reflect.TypeOf(a), nil, func(index []int) {
		n++
		var b Node
		set(reflect.ValueOf(&b).Elem().FieldByIndex(index))
		if a.Equal(&b) || b.Equal(&a) {
			t.Errorf("%v may differ", reflect.TypeOf(a).FieldByIndex(index).Name)
		}
		c := b
		if !b.Equal(&c) {
			t.Errorf("a node with %v does not equal itself", reflect.TypeOf(a).FieldByIndex(index).Name)
		}
	})
	if n < 20 {
		t.Errorf("only %d fields", n)
	}
}

func eachField(typ reflect.Type, at []int, f func([]int)) {
	for i := range typ.NumField() {
		index := append(append([]int(nil), at...), i)
		if field := typ.Field(i).Type; field.Kind() == reflect.Struct {
			eachField(field, index, f)
		} else {
			f(index)
		}
	}
}

func set(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Array:
		v.Index(0).SetUint(1)
	default:
		v.Set(reflect.ValueOf(1).Convert(v.Type()))
	}
}
