/*
 * heap.h
 *	  A binary min-heap of elements that know their own place in it.
 *
 * The functions are called minheap_*, as the server itself exports heap_insert and
 * heap_update, and the dynamic linker would give us those.
 */
#ifndef DSCHED_CORE_HEAP_H
#define DSCHED_CORE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Embedded in what is to be ordered; the smallest (time, id) comes first. */
typedef struct HeapNode
{
	int64_t id; /* first: an element whose own id it is need not have it twice */
	int64_t time;
	int index; /* place in the heap's array, or -1: in no heap */
} HeapNode;

typedef struct Heap
{
	HeapNode **nodes;
	int count;
	int capacity;
	void *(*grow)(void *old, size_t bytes); /* as realloc(); old is NULL at first */
} Heap;

/* Sets up an empty heap without memory.  What grow() gave (nodes) is the caller's to free. */
extern void minheap_init(Heap *heap, void *(*grow)(void *old, size_t bytes));

/* Sets up an element; to be called once, before anything else is done with it. */
extern void minheap_node_init(HeapNode *node);

/* Adds an element that is in no heap.  False, and nothing changed, if grow() gave NULL. */
extern bool minheap_insert(Heap *heap, HeapNode *node, int64_t time, int64_t id);

/* Gives an element of this heap a new place; adds it if it is in none (false as above). */
extern bool minheap_update(Heap *heap, HeapNode *node, int64_t time, int64_t id);

/* Takes an element out of the heap that it is in; nothing happens if it is in none. */
extern void minheap_remove(Heap *heap, HeapNode *node);

/* The first element, or NULL; pop also takes it out. */
extern HeapNode *minheap_peek(const Heap *heap);
extern HeapNode *minheap_pop(Heap *heap);

#endif /* DSCHED_CORE_HEAP_H */
