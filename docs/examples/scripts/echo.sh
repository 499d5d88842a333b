#!/bin/bash
echo "Hello"
