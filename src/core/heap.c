/*
 * heap.c
 *	  A binary min-heap of elements that know their own place in it.
 *
 * The children of nodes[i] are nodes[2i + 1] and nodes[2i + 2], and none comes before its
 * parent.  Each element's index says where it is, so that any element is removed or moved in
 * O(log n): the timetable does that with each change of a job.  Elements belong to the
 * caller; the heap owns only the array, which grows through the caller's grow() and never
 * shrinks.
 */
#include "core/heap.h"

#include <limits.h>

#define HEAP_FIRST_CAPACITY 64

static bool
comes_before(const HeapNode *a, const HeapNode *b)
{
	return a->time != b->time ? a->time < b->time : a->id < b->id;
}

static void
put(Heap *heap, int index, HeapNode *node)
{
	heap->nodes[index] = node;
	node->index = index;
}

/* Puts a node where index is, or nearer to the root. */
static void
sift_up(Heap *heap, int index, HeapNode *node)
{
	while (index > 0)
	{
		int parent = (index - 1) / 2;

		if (!comes_before(node, heap->nodes[parent]))
			break;
		put(heap, index, heap->nodes[parent]);
		index = parent;
	}
	put(heap, index, node);
}

/* Puts a node where index is, or further from the root. */
static void
sift_down(Heap *heap, int index, HeapNode *node)
{
	/* index < count / 2 is to have a child, written so that nothing overflows */
	while (index < heap->count / 2)
	{
		int child = 2 * index + 1;

		if (child + 1 < heap->count && comes_before(heap->nodes[child + 1], heap->nodes[child]))
			child++;
		if (!comes_before(heap->nodes[child], node))
			break;
		put(heap, index, heap->nodes[child]);
		index = child;
	}
	put(heap, index, node);
}

/* Puts a node into the hole at index, whichever way it belongs. */
static void
settle(Heap *heap, int index, HeapNode *node)
{
	if (index > 0 && comes_before(node, heap->nodes[(index - 1) / 2]))
		sift_up(heap, index, node);
	else
		sift_down(heap, index, node);
}

/* Makes room for one more element. */
static bool
reserve(Heap *heap)
{
	HeapNode **nodes;
	int capacity;

	if (heap->count < heap->capacity)
		return true;
	if (heap->capacity > INT_MAX / 2)
		return false;
	capacity = heap->capacity > 0 ? heap->capacity * 2 : HEAP_FIRST_CAPACITY;
	nodes = heap->grow(heap->nodes, (size_t) capacity * sizeof(*nodes));
	if (nodes == NULL)
		return false;
	heap->nodes = nodes;
	heap->capacity = capacity;
	return true;
}

void
minheap_init(Heap *heap, void *(*grow)(void *old, size_t bytes))
{
	heap->nodes = NULL;
	heap->count = 0;
	heap->capacity = 0;
	heap->grow = grow;
}

void
minheap_node_init(HeapNode *node)
{
	node->time = 0;
	node->id = 0;
	node->index = -1;
}

bool
minheap_insert(Heap *heap, HeapNode *node, int64_t time, int64_t id)
{
	if (!reserve(heap))
		return false;
	node->time = time;
	node->id = id;
	heap->count++;
	sift_up(heap, heap->count - 1, node);
	return true;
}

bool
minheap_update(Heap *heap, HeapNode *node, int64_t time, int64_t id)
{
	if (node->index < 0)
		return minheap_insert(heap, node, time, id);
	node->time = time;
	node->id = id;
	settle(heap, node->index, node);
	return true;
}

void
minheap_remove(Heap *heap, HeapNode *node)
{
	int hole = node->index;
	HeapNode *last;

	if (hole < 0)
		return;
	node->index = -1;
	heap->count--;
	last = heap->nodes[heap->count];
	if (last != node)
		settle(heap, hole, last);
}

HeapNode *
minheap_peek(const Heap *heap)
{
	return heap->count > 0 ? heap->nodes[0] : NULL;
}

HeapNode *
minheap_pop(Heap *heap)
{
	HeapNode *first = minheap_peek(heap);

	if (first != NULL)
		minheap_remove(heap, first);
	return first;
}
